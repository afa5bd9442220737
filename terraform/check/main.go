// Command check says whether the Terraform code beside it is right, without a cloud: format, `terraform init`, `validate` and `test` of every module and example, with
// the real argument names, types and nesting of the providers, and then that it finds mistakes which were planted (mistakes.go).
//
// The providers' own binaries are hundreds of megabytes and only to be had from their registry. What is needed of one is its schema, which is recorded in schemas/. The
// check serves it to Terraform as a provider: the same program under another name (provider.go). Neither makes a request to anything.
//
//	go run .                                                       check
//	terraform providers schema -json | go run . record aws 6.25.0  record a provider's schema anew, in a folder that uses it
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
)

func main() {
	if base := filepath.Base(os.Args[0]); strings.HasPrefix(base, providerPrefix) {
		if err := serve(filepath.Dir(os.Args[0]), base); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "terraform-check:", err)
		os.Exit(1) //nolint:gocritic // stop only matters to a process that goes on
	}
}

func run(ctx context.Context, args []string) error {
	switch {
	case len(args) == 0:
		return check(ctx, "..")
	case len(args) == 3 && args[0] == "record":
		return record(os.Stdin, "..", args[1], args[2])
	}
	return errors.New("usage: check [record PROVIDER VERSION < schema.json]")
}
