package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"millrace/event/wire"
	"millrace/internal/fault"
	"millrace/workers"
)

// References are the pages of docs/ that are written from code, by file name.
func References() map[string]string {
	return map[string]string{"CONFIG.md": configPage(), "errors.md": errorsPage(), "CLI.md": cliPage(), "METRICS.md": metricsPage(), "PATHS.md": pathsPage()}
}

const written = "<!-- Written by `make docs` from code; do not edit. -->\n\n"

func configPage() string {
	var b strings.Builder
	b.WriteString("# Configuration\n\n" + written + "Later wins: defaults, the file (`--config`, `$MILLRACE_CONFIG`, `./millrace.yaml`), the environment, flags (`--set key=value`). Unknown keys are errors. " +
		"`millrace config print` shows the effective values, `millrace config check` checks them.\n")
	section := "\x00"
	for _, k := range workers.DefaultConfig().Keys() {
		at, _, _ := strings.Cut(k.Path, ".")
		if !strings.Contains(k.Path, ".") {
			at = ""
		}
		if at != section {
			section = at
			if at == "" {
				at = "general"
			}
			fmt.Fprintf(&b, "\n## %s\n\n| key | default | what it is | environment |\n|---|---|---|---|\n", at)
		}
		fmt.Fprintf(&b, "| `%s` | `%s` | %s (%s) | `%s` |\n", k.Path, strings.ReplaceAll(k.Value, "|", "\\|"), strings.ReplaceAll(k.Desc, "|", "\\|"), k.Type, k.Env)
	}
	return b.String()
}

func pathsPage() string {
	var b strings.Builder
	b.WriteString("# Paths\n\n" + written + "What the gateway takes from producers. Every path is also served with a slash at its end, and none redirects. The body decides what it is, not its `Content-Type`; gzip and zstd are found " +
		"in the body, whatever `Content-Encoding` says. A write key counts wherever it is: `X-Write-Key`, `X-Api-Key`, Basic user name, `Bearer`, `?write_key=`, `?writeKey=`, `?api_key=`, `?api_secret=`, `?token=`, " +
		"and what the row says.\n\n" +
		"What cannot be understood is kept as a failed event and answered 200 like the rest; `X-Strict-Mode: 1` asks for errors instead. `429` with `Retry-After` asks to come again. " +
		"Browsers may send from the origins of `gateway.cors_origins`, with credentials and any header.\n\n" +
		"| method | path | format | sent by | write key | answer |\n|---|---|---|---|---|---|\n")
	cell := strings.NewReplacer("|", "\\|")
	for _, r := range wire.PathTable() {
		fmt.Fprintf(&b, "| %s | `%s` | %s | %s | %s | %s |\n", r.Methods, strings.Join(r.Paths, "` `"), r.Format, cell.Replace(r.Clients), cell.Replace(r.Auth), cell.Replace(r.Answer))
	}
	return b.String()
}

func errorsPage() string {
	var b strings.Builder
	b.WriteString("# Errors\n\n" + written + "Every error that a user can meet has an id, which never changes its meaning, and a remedy.\n\n| id | what happened | what to do |\n|---|---|---|\n")
	for _, e := range fault.Catalog() {
		fmt.Fprintf(&b, "| <a id=\"%s\"></a>`%s` | %s | %s |\n", strings.ToLower(string(e.ID)), e.ID, e.Title, strings.ReplaceAll(e.Remedy, "|", "\\|"))
	}
	return b.String()
}

func cliPage() string {
	var b strings.Builder
	b.WriteString("# Command line\n\n" + written)
	root := (&app{out: io.Discard, err: io.Discard}).root()
	root.InitDefaultCompletionCmd()
	b.WriteString("Data goes to stdout; logs, progress and errors to stderr. Exit codes: 0, 1 for a failure, 2 for wrong usage. Every command takes:\n\n```\n")
	b.WriteString(root.PersistentFlags().FlagUsages() + "```\n")
	pages(&b, root)
	return b.String()
}

func pages(b *strings.Builder, c *cobra.Command) {
	for _, sub := range c.Commands() {
		if sub.Hidden || sub.Name() == "help" {
			continue
		}
		if sub.Runnable() && !sub.HasSubCommands() {
			fmt.Fprintf(b, "\n## %s\n\n%s.\n\n```\n%s\n", sub.CommandPath(), strings.TrimSuffix(sub.Short, "."), sub.UseLine())
			flags := sub.NonInheritedFlags()
			if has(flags) {
				b.WriteString(flags.FlagUsages())
			}
			b.WriteString("```\n")
		}
		pages(b, sub)
	}
}

func has(f *pflag.FlagSet) bool {
	any := false
	f.VisitAll(func(*pflag.Flag) { any = true })
	return any
}
