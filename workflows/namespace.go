package workflows

import (
	"context"
	"fmt"
	"time"

	enums "go.temporal.io/api/enums/v1"
	namespacepb "go.temporal.io/api/namespace/v1"
	"go.temporal.io/api/operatorservice/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"google.golang.org/protobuf/types/known/durationpb"

	"millrace/workflows/name"
)

// PrepareNamespace sets how long closed workflows are kept and adds the search attributes that are missing. It runs on every start of the platform: nothing else tells
// whether an earlier one got that far.
func PrepareNamespace(ctx context.Context, c client.Client, namespace string, retention time.Duration) error {
	have, err := c.WorkflowService().DescribeNamespace(ctx, &workflowservice.DescribeNamespaceRequest{Namespace: namespace})
	if err != nil {
		return fmt.Errorf("namespace %s: %w", namespace, err)
	}
	if have.GetConfig().GetWorkflowExecutionRetentionTtl().AsDuration() != retention {
		_, err := c.WorkflowService().UpdateNamespace(ctx, &workflowservice.UpdateNamespaceRequest{
			Namespace: namespace, Config: &namespacepb.NamespaceConfig{WorkflowExecutionRetentionTtl: durationpb.New(retention)},
		})
		if err != nil {
			return fmt.Errorf("setting the retention of namespace %s to %s: %w", namespace, retention, err)
		}
	}
	attrs, err := c.OperatorService().ListSearchAttributes(ctx, &operatorservice.ListSearchAttributesRequest{Namespace: namespace})
	if err != nil {
		return fmt.Errorf("listing search attributes: %w", err)
	}
	missing := map[string]enums.IndexedValueType{}
	for n, kind := range name.Attributes() {
		switch got, ok := attrs.GetCustomAttributes()[n]; {
		case !ok:
			missing[n] = kind
		case got != kind:
			return fmt.Errorf("search attribute %s of namespace %s is a %s, not a %s: remove it", n, namespace, got, kind)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	if _, err := c.OperatorService().AddSearchAttributes(ctx, &operatorservice.AddSearchAttributesRequest{Namespace: namespace, SearchAttributes: missing}); err != nil {
		return fmt.Errorf("adding search attributes: %w", err)
	}
	return nil
}
