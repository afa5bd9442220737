package cli

import (
	"fmt"
	"slices"
	"strings"

	"millrace/workers"
)

// metricsPage is the catalogue of metrics. Making the platform's parts to ask them fails only where the code is wrong.
func metricsPage() string {
	all, err := workers.Metrics()
	if err != nil {
		panic(fmt.Sprintf("listing the metrics: %v", err))
	}
	var b strings.Builder
	b.WriteString("# Metrics\n\n" + written + "Every role serves these at `/metrics` of its `admin.listen`, beside `/healthz` and `/readyz`; the metrics of Go's runtime (`go_…`) and of the process (`process_…`) come with them. " +
		"`endpoints.json` lists the addresses. Series by `partition` or `topic` go away with the task or the partition. Dashboards and alert rules over them are in `deploy/observability`.\n")
	area := ""
	for _, m := range all {
		if at := strings.Split(m.Name, "_")[1]; at != area {
			area = at
			fmt.Fprintf(&b, "\n## %s\n\n| metric | type | unit | labels | meaning | roles |\n|---|---|---|---|---|---|\n", area)
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s | %s |\n", m.Name, m.Type, m.Unit, metricLabels(m), strings.ReplaceAll(m.Help, "|", "\\|"), strings.Join(m.Roles, ", "))
	}
	return b.String()
}

// metricLabels lists the labels; those that are fixed in a process with their values.
func metricLabels(m workers.Metric) string {
	var out []string
	fixed := map[string][]string{}
	for _, f := range m.Fixed {
		name, value, _ := strings.Cut(f, "=")
		if fixed[name] == nil {
			out = append(out, name)
		}
		fixed[name] = append(fixed[name], strings.Trim(value, `"`))
	}
	slices.Sort(out)
	for i, name := range out {
		out[i] = "`" + name + "` (" + strings.Join(fixed[name], ", ") + ")"
	}
	for _, l := range m.Labels {
		out = append(out, "`"+l+"`")
	}
	return strings.Join(out, ", ")
}
