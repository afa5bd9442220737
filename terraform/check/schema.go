package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/hashicorp/terraform-plugin-go/tfprotov5"
	"github.com/hashicorp/terraform-plugin-go/tftypes"
)

// recorded is a provider's schema as in schemas/: an extract of `terraform providers schema -json`.
type recorded struct {
	Version   string              `json:"version"` // of the provider
	From      string              `json:"from"`
	Provider  resource            `json:"provider"`
	Resources map[string]resource `json:"resource_schemas"`
}

type resource struct {
	Version int64 `json:"version"`
	Block   block `json:"block"`
}

type block struct {
	Attributes map[string]attribute `json:"attributes,omitempty"`
	Blocks     map[string]nested    `json:"block_types,omitempty"`
}

type nested struct {
	Nesting string `json:"nesting_mode"`
	Min     int64  `json:"min_items,omitempty"`
	Max     int64  `json:"max_items,omitempty"`
	Block   block  `json:"block"`
}

// attribute is one argument. Optional ones count as computed, too, where it is not known whether they are.
type attribute struct {
	Type     json.RawMessage `json:"type"`
	Required bool            `json:"required,omitempty"`
	Optional bool            `json:"optional,omitempty"`
	Computed bool            `json:"computed,omitempty"`
	Enum     []string        `json:"x-enum,omitempty"` // values that the provider documents
}

// rules is what schemas do not say but the providers' documentation does.
type rules struct {
	Enum      map[string][]string   `json:"enum"`      // by path, such as aws_route53_record.failover_routing_policy.type
	Conflicts map[string][][]string `json:"conflicts"` // by resource: top-level members of which only one may be set
}

func readJSON(file string, into any) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, into); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return nil
}

// apply puts the rules' enumerations into the schema. A rule about something that is not there is a mistake.
func (r *recorded) apply(rs rules) error {
	for path, values := range rs.Enum {
		parts := strings.Split(path, ".")
		res, ok := r.Resources[parts[0]]
		if !ok {
			continue // of another provider
		}
		at := res.Block
		for _, name := range parts[1 : len(parts)-1] {
			at = at.Blocks[name].Block
		}
		last := parts[len(parts)-1]
		a, ok := at.Attributes[last]
		if !ok {
			return fmt.Errorf("rules: there is no %s", path)
		}
		a.Enum = values
		at.Attributes[last] = a
	}
	for name, sets := range rs.Conflicts {
		res, ok := r.Resources[name]
		if !ok {
			continue
		}
		for _, member := range slices.Concat(sets...) {
			_, isAttribute := res.Block.Attributes[member]
			_, isBlock := res.Block.Blocks[member]
			if !isAttribute && !isBlock {
				return fmt.Errorf("rules: %s has no %s", name, member)
			}
		}
	}
	return nil
}

var nestings = map[string]tfprotov5.SchemaNestedBlockNestingMode{
	"single": tfprotov5.SchemaNestedBlockNestingModeSingle, "list": tfprotov5.SchemaNestedBlockNestingModeList,
	"set": tfprotov5.SchemaNestedBlockNestingModeSet, "map": tfprotov5.SchemaNestedBlockNestingModeMap, "group": tfprotov5.SchemaNestedBlockNestingModeGroup,
}

// proto is the block in the provider protocol.
func (b block) proto() (*tfprotov5.SchemaBlock, error) {
	out := &tfprotov5.SchemaBlock{}
	for _, name := range sortedKeys(b.Attributes) {
		a := b.Attributes[name]
		t, err := tftypes.ParseJSONType(a.Type) //nolint:staticcheck // the format is Terraform's own; there is no other reader of it
		if err != nil {
			return nil, fmt.Errorf("type of %s: %w", name, err)
		}
		out.Attributes = append(out.Attributes, &tfprotov5.SchemaAttribute{Name: name, Type: t, Required: a.Required, Optional: a.Optional, Computed: a.Computed})
	}
	for _, name := range sortedKeys(b.Blocks) {
		n := b.Blocks[name]
		inner, err := n.Block.proto()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		out.BlockTypes = append(out.BlockTypes, &tfprotov5.SchemaNestedBlock{TypeName: name, Nesting: nestings[n.Nesting], MinItems: n.Min, MaxItems: n.Max, Block: inner})
	}
	return out, nil
}

func (r resource) proto() (*tfprotov5.Schema, error) {
	b, err := r.Block.proto()
	return &tfprotov5.Schema{Version: r.Version, Block: b}, err
}

func sortedKeys[V any](m map[string]V) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

var resourceLine = regexp.MustCompile(`(?m)^resource "([a-z0-9]+)_([a-z0-9_]+)"`)

// used lists the resource types of a provider in all of the code.
func used(root, provider string) ([]string, error) {
	files, err := filepath.Glob(filepath.Join(root, "*", "*", "*.tf"))
	if err != nil {
		return nil, err
	}
	var out []string
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		for _, m := range resourceLine.FindAllSubmatch(text, -1) {
			if string(m[1]) == provider {
				out = append(out, provider+"_"+string(m[2]))
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}
