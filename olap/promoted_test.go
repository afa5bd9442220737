package olap

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"millrace/event/schema"
	"millrace/internal/fault"
)

func TestPromotedColumnsAreAddedAndOnlyWidened(t *testing.T) {
	t.Parallel()
	gift := schema.Promotion{Category: "purchase", Name: "gift", Type: "long", ID: schema.FirstPromotedID}
	for what, c := range map[string]struct {
		have, cluster string
		want          []string
	}{
		"absent":                       {"", "", []string{"ALTER TABLE events_purchase ADD COLUMN IF NOT EXISTS gift Nullable(Int64)"}},
		"there":                        {"Nullable(Int64)", "", nil},
		"narrower":                     {"Nullable(Int32)", "", []string{"ALTER TABLE events_purchase MODIFY COLUMN gift Nullable(Int64)"}},
		"absent on a cluster: both":    {"", "c", []string{"ALTER TABLE events_purchase_local ON CLUSTER c ADD COLUMN IF NOT EXISTS gift Nullable(Int64)", "ALTER TABLE events_purchase ON CLUSTER c ADD COLUMN IF NOT EXISTS gift Nullable(Int64)"}},
		"narrower on a cluster: ditto": {"Nullable(Int32)", "c", []string{"ALTER TABLE events_purchase_local ON CLUSTER c MODIFY COLUMN gift Nullable(Int64)", "ALTER TABLE events_purchase ON CLUSTER c MODIFY COLUMN gift Nullable(Int64)"}},
	} {
		got, err := PromotedDDL("events_purchase", gift, c.have, c.cluster)
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s: %s", what, diff)
		}
	}
	gift.Type = "int"
	if got, err := PromotedDDL("events_purchase", gift, "Nullable(Int64)", ""); err != nil || got != nil {
		t.Errorf("an older promotion narrows: %v %v", got, err)
	}
	_, err := PromotedDDL("events_purchase", gift, "String", "")
	if id, _ := fault.IDOf(err); id != "MR-CH-002" {
		t.Errorf("another type: %v", err)
	}
}
