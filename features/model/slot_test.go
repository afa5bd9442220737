package model

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestAModelThatCannotBeUsedLeavesTheOneBeforeInForce(t *testing.T) {
	var s Slot
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	if s.Model() != nil || s.Status() != (SlotStatus{}) {
		t.Fatal("an empty slot has a model")
	}
	good := filepath.Join("testdata", "lgb_binary.txt")
	if changed, err := s.Load(good, at, nil); err != nil || !changed {
		t.Fatal(changed, err)
	}
	first := s.Model()
	text, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	cut := filepath.Join(t.TempDir(), "cut.txt")
	if err := os.WriteFile(cut, text[:len(text)/3], 0o600); err != nil {
		t.Fatal(err)
	}
	for path, check := range map[string]func(*Model) error{
		cut:                                      nil,
		filepath.Join(t.TempDir(), "none"):       nil,
		filepath.Join("testdata", "lgb_reg.txt"): func(*Model) error { return errors.New("not this one") },
	} {
		if changed, err := s.Load(path, at.Add(time.Minute), check); err == nil || changed {
			t.Errorf("%s came into force", path)
		}
		st := s.Status()
		if s.Model() != first || st.Version != first.Version || !st.LoadedAt.Equal(at) || st.Path != path || st.LastError == "" {
			t.Errorf("after %s: %+v", path, st)
		}
	}
	if changed, err := s.Load(good, at.Add(time.Hour), nil); err != nil || changed || s.Model() != first || s.Status().LastError != "" {
		t.Errorf("the same file again: %v %v %+v", changed, err, s.Status())
	}
	if changed, err := s.Load(filepath.Join("testdata", "lgb_reg.txt"), at.Add(time.Hour), nil); err != nil || !changed || s.Model() == first {
		t.Errorf("another file: %v %v", changed, err)
	}
}

func TestScoresGoOnWhileModelsAreSwapped(t *testing.T) {
	var s Slot
	files := []string{"lgb_binary.txt", "lgb_reg.txt", "xgb_reg.json"}
	want := map[string]float64{}
	row := []float64{1, 2, 3, 4, 5, 6, 1, 2}
	for _, f := range files {
		m := open(t, f)
		v, err := m.Score(row)
		if err != nil {
			t.Fatal(err)
		}
		want[m.Version] = v
	}
	if err := s.Put(open(t, files[0]), time.Now()); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		defer close(done)
		for i := range 60 {
			if _, err := s.Load(filepath.Join("testdata", files[i%len(files)]), time.Now(), nil); err != nil {
				t.Error(err)
			}
		}
	})
	wg.Go(func() {
		for {
			m := s.Model()
			if got, err := m.Score(row); err != nil || got != want[m.Version] {
				t.Errorf("version %.8s gives %v, %v", m.Version, got, err)
			}
			select {
			case <-done:
				return
			default:
			}
		}
	})
	wg.Wait()
	if err := s.Put(nil, time.Now()); err == nil || !strings.Contains(err.Error(), "no model") {
		t.Error(err)
	}
}
