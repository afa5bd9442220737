package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	enums "go.temporal.io/api/enums/v1"
	namespacepb "go.temporal.io/api/namespace/v1"
	"go.temporal.io/api/operatorservice/v1"
	"go.temporal.io/api/workflowservice/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/durationpb"
)

const namespace = "default"

// searchAttributes is the closed set by which workflows are found. SQL visibility
// has ten keyword columns, and these are ten.
func searchAttributes() map[string]enums.IndexedValueType {
	attributes := map[string]enums.IndexedValueType{
		"MillraceRows":  enums.INDEXED_VALUE_TYPE_INT,
		"MillraceBytes": enums.INDEXED_VALUE_TYPE_INT,
	}
	for _, keyword := range []string{
		"Table", "Tenant", "Day", "SubjectKind", "View", "Experiment", "Suite", "Phase", "Outcome", "Trigger",
	} {
		attributes["Millrace"+keyword] = enums.INDEXED_VALUE_TYPE_KEYWORD
	}
	return attributes
}

// prepareNamespace sets retention and adds missing search attributes. It runs on
// every start, because creating a namespace that exists changes nothing, and the
// one made with the database keeps closed workflows for a day only.
func prepareNamespace(ctx context.Context, o options) error {
	conn, err := grpc.NewClient(address(o.port), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return fmt.Errorf("dialling the frontend: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	err = retry(ctx, func() error {
		if err := setRetention(ctx, workflowservice.NewWorkflowServiceClient(conn), o.retention); err != nil {
			return err
		}
		return addSearchAttributes(ctx, operatorservice.NewOperatorServiceClient(conn))
	})
	return errors.Join(err, conn.Close())
}

func setRetention(ctx context.Context, client workflowservice.WorkflowServiceClient, retention time.Duration) error {
	current, err := client.DescribeNamespace(ctx, &workflowservice.DescribeNamespaceRequest{Namespace: namespace})
	if err != nil {
		return fmt.Errorf("describing: %w", err)
	}
	if current.GetConfig().GetWorkflowExecutionRetentionTtl().AsDuration() == retention {
		return nil
	}
	_, err = client.UpdateNamespace(ctx, &workflowservice.UpdateNamespaceRequest{
		Namespace: namespace,
		Config:    &namespacepb.NamespaceConfig{WorkflowExecutionRetentionTtl: durationpb.New(retention)},
	})
	if err != nil {
		return fmt.Errorf("setting retention %s: %w", retention, err)
	}
	return nil
}

func addSearchAttributes(ctx context.Context, client operatorservice.OperatorServiceClient) error {
	have, err := client.ListSearchAttributes(ctx, &operatorservice.ListSearchAttributesRequest{Namespace: namespace})
	if err != nil {
		return fmt.Errorf("listing search attributes: %w", err)
	}
	missing := searchAttributes()
	for name := range have.GetCustomAttributes() {
		delete(missing, name)
	}
	if len(missing) == 0 {
		return nil
	}
	_, err = client.AddSearchAttributes(ctx, &operatorservice.AddSearchAttributesRequest{
		Namespace: namespace, SearchAttributes: missing,
	})
	if err != nil {
		return fmt.Errorf("adding search attributes: %w", err)
	}
	return nil
}

// retry repeats do until it succeeds: the services answer "unavailable" for a
// moment after they have started.
func retry(ctx context.Context, do func() error) error {
	for {
		err := do()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(err, ctx.Err())
		case <-time.After(100 * time.Millisecond):
		}
	}
}
