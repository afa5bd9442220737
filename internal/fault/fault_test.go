package fault

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
)

func TestAFaultKeepsItsCauseItsIDAndItsRemedy(t *testing.T) {
	err := fmt.Errorf("starting: %w", Newf("MR-CLI-001", "reading: %w", io.EOF))
	if id, ok := IDOf(err); !ok || id != "MR-CLI-001" {
		t.Errorf("id %q, %v", id, ok)
	}
	if !errors.Is(err, io.EOF) || !strings.HasSuffix(err.Error(), "reading: EOF [MR-CLI-001]") {
		t.Errorf("error %q", err)
	}
	if New("MR-CLI-001", nil) != nil {
		t.Error("no error became one")
	}
	if _, ok := IDOf(io.EOF); ok {
		t.Error("an error without id has one")
	}
	if e, ok := Lookup("MR-CLI-001"); !ok || e.Remedy == "" || e.Remedy != Remedy("MR-CLI-001") {
		t.Errorf("entry %+v", e)
	}
	if _, ok := Lookup("MR-XX-999"); ok || Remedy("MR-XX-999") != "" {
		t.Error("an unknown id is known")
	}
}

func TestTheCatalogueIsSortedAndSaysWhatToDo(t *testing.T) {
	all := Catalog()
	for i, e := range all {
		if e.Title == "" || e.Remedy == "" || i > 0 && all[i-1].ID >= e.ID {
			t.Errorf("%+v", e)
		}
	}
}
