package cli

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"millrace/internal/embedded"
)

func (a *app) install() *cobra.Command {
	return &cobra.Command{
		Use:       "install [" + strings.Join(embedded.Installables(), "|") + "]...",
		Short:     "Bring the embedded servers into the cache ahead of their first start",
		ValidArgs: slices.Concat(embedded.Installables(), embedded.TestTools()),
		Args:      cobra.OnlyValidArgs,
		RunE: func(c *cobra.Command, args []string) error {
			started := time.Now()
			log := slog.New(slog.NewTextHandler(a.err, &slog.HandlerOptions{Level: slog.LevelWarn}))
			if err := embedded.Install(c.Context(), args, log, a.installProgress()); err != nil {
				return err
			}
			_, err := fmt.Fprintf(a.out, "installed in %.0f s\n", time.Since(started).Seconds())
			return err
		},
	}
}

// installProgress says each step once, with its size where that is known.
func (a *app) installProgress() func(name, step string, done, total int64) {
	var mu sync.Mutex
	last := map[string]string{}
	return func(name, step string, _, total int64) {
		mu.Lock()
		defer mu.Unlock()
		if last[name] == step {
			return
		}
		last[name] = step
		size := ""
		if total > 0 {
			size = " (" + bytes(total) + ")"
		}
		_, _ = fmt.Fprintf(a.err, "… %-12s %s%s\n", name, step, size) // progress
	}
}
