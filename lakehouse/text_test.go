package lakehouse

import (
	"testing"

	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestATextBufferHoldsWhatWasPutIntoItBatchAfterBatch(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var c textBuffer
		for range 3 {
			want := rapid.SliceOfN(rapid.Ptr(rapid.StringN(-1, 8, 16), true), 1, 40).Draw(t, "rows")
			for i, v := range want {
				if v != nil {
					c.value(i, *v)
				}
			}
			col, ok := c.array(len(want)).(*array.String)
			if !ok {
				t.Fatal("no strings")
			}
			got := make([]*string, col.Len())
			nulls := 0
			for i := range got {
				if col.IsNull(i) {
					nulls++
				} else {
					v := col.Value(i)
					got[i] = &v
				}
			}
			if diff := cmp.Diff(want, got); diff != "" || nulls != col.NullN() {
				t.Fatalf("%d nulls of %d: %s", nulls, col.NullN(), diff)
			}
			col.Release()
		}
	})
}
