package main

import (
	"context"
	"encoding/json"
	"fmt"

	"millrace/test/drills/drill"
	"millrace/workflows/name"
)

// reconciled is what reconciliations of some hours found together.
type reconciled struct {
	outcome  string
	differs  map[string]map[string]int64
	repaired map[string]int64
}

func (r reconciled) of(store string) map[string]int64 { return r.differs[store] }

// reconcile runs the command for each hour. It fails where a store differs, which its output says.
func reconcile(ctx context.Context, p drill.Program, hours []string, repair bool) (reconciled, error) {
	out := reconciled{outcome: name.Equal, differs: map[string]map[string]int64{}, repaired: map[string]int64{}}
	rank := map[string]int{name.Unjudged: 0, name.Equal: 1, name.Mended: 2, name.Differs: 3}
	for _, hour := range hours {
		args := []string{"reconcile", topicName, "--hour", hour, "-o", "json"}
		if repair {
			args = append(args, "--repair")
		}
		text, failed := p.Call(ctx, args...)
		var r name.ReconcileResult
		if err := json.Unmarshal(text, &r); err != nil {
			return out, fmt.Errorf("reconcile answered %q: %w, %w", text, err, failed)
		}
		if (failed != nil) != (r.Outcome == name.Differs) {
			return out, fmt.Errorf("the outcome is %s, and the command ended with %w", r.Outcome, failed)
		}
		if rank[r.Outcome] > rank[out.outcome] {
			out.outcome = r.Outcome
		}
		for _, s := range r.Stores {
			for kind, n := range s.Differences {
				if out.differs[s.Store] == nil {
					out.differs[s.Store] = map[string]int64{}
				}
				out.differs[s.Store][kind] += n
			}
			if s.Repaired > 0 {
				out.repaired[s.Store] += s.Repaired
			}
		}
	}
	return out, nil
}
