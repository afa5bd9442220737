//go:build !linux

package embedded

import (
	"context"
	"errors"
)

// RunClickHouseChild is there on Linux only.
func RunClickHouseChild(context.Context, ClickHouseChildOptions) error {
	return errors.New("the ClickHouse engine runs on Linux only")
}
