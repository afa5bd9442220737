package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hashicorp/terraform-plugin-go/tfprotov5"
	"github.com/hashicorp/terraform-plugin-go/tfprotov5/tf5server"
	"github.com/hashicorp/terraform-plugin-go/tftypes"
)

const providerPrefix = "terraform-provider-"

// provider serves a recorded schema. It can say whether a configuration fits the schema, and nothing else: what a resource would become is made up by Terraform's own
// mock_provider in the tests.
type provider struct {
	tfprotov5.ProviderServer // what is not below is never asked of a mocked provider; if it is, the panic says so
	recorded
	conflicts map[string][][]string
}

// serve answers Terraform as the provider that the program is called as, until Terraform ends it. The schema and rules.json are beside the program.
func serve(dir, program string) error {
	name, _, _ := strings.Cut(strings.TrimPrefix(program, providerPrefix), "_")
	p := &provider{}
	var rs rules
	err := errors.Join(readJSON(filepath.Join(dir, name+".json"), &p.recorded), readJSON(filepath.Join(dir, "rules.json"), &rs))
	if err == nil {
		err = p.apply(rs)
	}
	if err != nil {
		return fmt.Errorf("recorded schema of provider %s: %w", name, err)
	}
	p.conflicts = rs.Conflicts
	return tf5server.Serve(p.From, func() tfprotov5.ProviderServer { return p })
}

// GetMetadata says that the schema has to be read: Terraform then asks for it.
func (p *provider) GetMetadata(context.Context, *tfprotov5.GetMetadataRequest) (*tfprotov5.GetMetadataResponse, error) {
	return nil, errors.New("the schema says it all")
}

// GetProviderSchema gives the recorded schema.
func (p *provider) GetProviderSchema(context.Context, *tfprotov5.GetProviderSchemaRequest) (*tfprotov5.GetProviderSchemaResponse, error) {
	own, err := p.Provider.proto()
	if err != nil {
		return nil, err
	}
	out := &tfprotov5.GetProviderSchemaResponse{Provider: own, ResourceSchemas: map[string]*tfprotov5.Schema{}}
	for name, r := range p.Resources {
		if out.ResourceSchemas[name], err = r.proto(); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	return out, nil
}

// PrepareProviderConfig takes any configuration that fits the schema.
func (p *provider) PrepareProviderConfig(_ context.Context, q *tfprotov5.PrepareProviderConfigRequest) (*tfprotov5.PrepareProviderConfigResponse, error) {
	return &tfprotov5.PrepareProviderConfigResponse{PreparedConfig: q.Config}, nil
}

// ConfigureProvider does nothing: there is nothing to connect to.
func (p *provider) ConfigureProvider(context.Context, *tfprotov5.ConfigureProviderRequest) (*tfprotov5.ConfigureProviderResponse, error) {
	return &tfprotov5.ConfigureProviderResponse{}, nil
}

// StopProvider has nothing to stop.
func (p *provider) StopProvider(context.Context, *tfprotov5.StopProviderRequest) (*tfprotov5.StopProviderResponse, error) {
	return &tfprotov5.StopProviderResponse{}, nil
}

// ValidateResourceTypeConfig says what Terraform cannot know from the schema: values that are none of an enumeration, members that exclude each other.
func (p *provider) ValidateResourceTypeConfig(_ context.Context, q *tfprotov5.ValidateResourceTypeConfigRequest) (*tfprotov5.ValidateResourceTypeConfigResponse, error) {
	r := p.Resources[q.TypeName]
	s, err := r.proto()
	if err != nil {
		return nil, err
	}
	v, err := q.Config.Unmarshal(s.ValueType())
	if err != nil {
		return nil, fmt.Errorf("configuration of %s: %w", q.TypeName, err)
	}
	out := &tfprotov5.ValidateResourceTypeConfigResponse{}
	complain := func(at *tftypes.AttributePath, detail string) {
		out.Diagnostics = append(out.Diagnostics, &tfprotov5.Diagnostic{Severity: tfprotov5.DiagnosticSeverityError, Summary: "Invalid value", Detail: detail, Attribute: at})
	}
	var members map[string]tftypes.Value
	if err := v.As(&members); err != nil {
		return nil, fmt.Errorf("configuration of %s: %w", q.TypeName, err)
	}
	for _, set := range p.conflicts[q.TypeName] {
		var present []string
		for _, name := range set {
			if isSet(members[name]) {
				present = append(present, name)
			}
		}
		if len(present) > 1 {
			complain(tftypes.NewAttributePath(), strings.Join(present, " and ")+" exclude each other")
		}
	}
	enumerations(r.Block, v, tftypes.NewAttributePath(), complain)
	return out, nil
}

// isSet says whether a member is known to be there.
func isSet(v tftypes.Value) bool {
	if v.IsNull() || !v.IsKnown() {
		return false
	}
	var elements []tftypes.Value
	if v.As(&elements) == nil {
		return len(elements) > 0
	}
	return true
}

// enumerations looks for strings that are none of the values which are known for them.
func enumerations(b block, v tftypes.Value, at *tftypes.AttributePath, complain func(*tftypes.AttributePath, string)) {
	var members map[string]tftypes.Value
	if v.IsNull() || !v.IsKnown() || v.As(&members) != nil {
		return
	}
	for name, a := range b.Attributes {
		var s string
		have := members[name]
		if len(a.Enum) == 0 || have.IsNull() || !have.IsKnown() || have.As(&s) != nil || slices.Contains(a.Enum, s) {
			continue
		}
		complain(at.WithAttributeName(name), fmt.Sprintf("%q is none of %s", s, strings.Join(a.Enum, ", ")))
	}
	for name, n := range b.Blocks {
		inner, path := members[name], at.WithAttributeName(name)
		var elements []tftypes.Value
		if n.Nesting == "single" || n.Nesting == "group" {
			enumerations(n.Block, inner, path, complain)
		} else if inner.IsKnown() && !inner.IsNull() && inner.As(&elements) == nil {
			for i, e := range elements {
				where := path
				if n.Nesting == "list" {
					where = path.WithElementKeyInt(i)
				}
				enumerations(n.Block, e, where, complain)
			}
		}
	}
}
