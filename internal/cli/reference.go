package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"millrace/internal/fault"
	"millrace/workers"
)

// References are the pages of docs/ that are written from code, by file name.
func References() map[string]string {
	return map[string]string{"CONFIG.md": configPage(), "errors.md": errorsPage(), "CLI.md": cliPage()}
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
