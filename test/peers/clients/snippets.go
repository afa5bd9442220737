package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"millrace/test/peers/clients/proxy"
)

// snippet is a program of docs/producers.md, run as it is written there but for the host name and the key.
type snippet struct {
	name, language, code string
}

// runners says by the name of a snippet what runs it. Every one must be on the page, and nothing else.
var runners = map[string]runner{
	"segment-node": node, "segment-browser": browser, "segment-python": python, "segment-java": java,
	"rudderstack-node": node, "rudderstack-browser": browser, "rudderstack-python": python,
	"snowplow-node": node, "snowplow-browser": browser, "snowplow-python": python,
	"cloudevents-node": node, "cloudevents-python": python, "ga4-python": python,
	"posthog-node": node, "posthog-browser": browser, "posthog-python": python,
}

// fence is the first line of a snippet: ```js segment-node
var fence = regexp.MustCompile("^```(js|python|java) ([a-z0-9-]+)$")

// What stands for the user's own host and key on the page.
const (
	docHost = "https://events.example.com"
	docKey  = "YOUR_WRITE_KEY"
)

// snippets takes them from the page.
func snippets(page string) ([]snippet, error) {
	b, err := os.ReadFile(page)
	if err != nil {
		return nil, err
	}
	var out []snippet
	var open *snippet
	for line := range strings.Lines(string(b)) {
		m := fence.FindStringSubmatch(strings.TrimRight(line, "\n"))
		switch {
		case open == nil && m != nil:
			open = &snippet{language: m[1], name: m[2]}
		case open != nil && strings.HasPrefix(line, "```"):
			out = append(out, *open)
			open = nil
		case open != nil:
			open.code += line
		}
	}
	var errs []error
	for name := range runners {
		if !slices.ContainsFunc(out, func(s snippet) bool { return s.name == name }) {
			errs = append(errs, fmt.Errorf("%s has no snippet %s", page, name))
		}
	}
	for i, s := range out {
		switch {
		case runners[s.name] == "":
			errs = append(errs, fmt.Errorf("%s: nothing runs the snippet %s", page, s.name))
		case slices.ContainsFunc(out[:i], func(o snippet) bool { return o.name == s.name }):
			errs = append(errs, fmt.Errorf("%s has two snippets %s", page, s.name))
		case !strings.Contains(s.code, docHost) && !strings.Contains(s.code, strings.TrimPrefix(docHost, "https://")) || !strings.Contains(s.code, docKey):
			errs = append(errs, fmt.Errorf("%s: the snippet %s has not %s and %s", page, s.name, docHost, docKey))
		}
	}
	return out, errors.Join(errs...)
}

// trial is the run of a snippet: each says the same purchase, and an undisturbed gateway has it once.
func (s snippet) trial() *trial {
	return &trial{
		client: client{name: "snippet", run: runners[s.name], every: 1}, fault: proxy.None, snippet: &s,
		wants: []want{{name: "purchase", value: "129.90", currency: "EUR", order: "o-1001", products: []string{"mug-1"}}}, means: "the purchase, once",
	}
}

// write puts the snippet where it can run, with the suite's gateway in place of the page's.
func (s snippet) write(t *tools, work, gateway, key string) (string, error) {
	code := strings.NewReplacer(docHost, gateway, strings.TrimPrefix(docHost, "https://"), strings.TrimPrefix(gateway, "http://"), docKey, key).Replace(s.code)
	path := filepath.Join(work, "Snippet.java")
	switch runners[s.name] {
	case node, browser: // modules are found from the file's own folder
		path = filepath.Join(t.js, "snippet-"+s.name+".mjs")
	case python:
		path = filepath.Join(work, "snippet.py")
	}
	return path, os.WriteFile(path, []byte(code), 0o600)
}
