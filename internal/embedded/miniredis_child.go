package embedded

import (
	"context"
	"errors"
	"fmt"

	"github.com/alicebob/miniredis/v2"
)

// RunMiniredisChild runs a Redis stand-in until ctx is done. It keeps nothing on
// disk: what is in it is gone when it ends.
func RunMiniredisChild(ctx context.Context, addr string) error {
	if addr == "" {
		return errors.New("flag -addr is required")
	}
	m := miniredis.NewMiniRedis()
	m.ClockTTL(true) // otherwise keys never expire by themselves
	if err := m.StartAddr(addr); err != nil {
		return fmt.Errorf("starting miniredis: %w", err)
	}
	defer m.Close()
	<-ctx.Done()
	return nil
}
