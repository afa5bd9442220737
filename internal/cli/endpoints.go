package cli

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"millrace/internal/fault"
	"millrace/workers"
)

func (a *app) endpoints() *cobra.Command {
	return &cobra.Command{
		Use: "endpoints [NAME]", Short: "Print where everything is: endpoints.json, or one value of it such as clickhouse.http", Args: cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			cfg, err := a.load(false)
			if err != nil {
				return err
			}
			e, err := workers.LoadEndpoints(cfg.Data)
			if err != nil {
				return err
			}
			if len(args) == 0 {
				return a.json(e)
			}
			b, err := json.Marshal(e)
			if err != nil {
				return fmt.Errorf("endpoints: %w", err)
			}
			var at any
			if err := json.Unmarshal(b, &at); err != nil {
				return fmt.Errorf("endpoints: %w", err)
			}
			for part := range strings.SplitSeq(args[0], ".") {
				m, ok := at.(map[string]any)
				if !ok {
					return fault.Newf("MR-CLI-001", "endpoints: %s has no part %q", args[0], part)
				}
				if at, ok = m[part]; !ok {
					return fault.Newf("MR-CLI-001", "endpoints: no %q; there are %s", part, strings.Join(slices.Sorted(maps.Keys(m)), ", "))
				}
			}
			if s, ok := at.(string); ok {
				_, err := fmt.Fprintln(a.out, s)
				return err
			}
			return a.json(at)
		},
	}
}
