package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"go.temporal.io/sdk/client"
	tlog "go.temporal.io/sdk/log"

	"millrace/olap"
	"millrace/test/drills/drill"
	"millrace/workers"
)

// platform is the program on a data directory, and clients of its servers while it is up.
type platform struct {
	program drill.Program
	broker  string
	period  time.Duration

	endpoints workers.Endpoints
	temporal  client.Client
	conn      driver.Conn
	stop      func() error // nil: it is down
}

func (p *platform) up(ctx context.Context, env ...string) (err error) {
	if p.stop, err = p.program.With(env...).Up(ctx, "--broker", p.broker, "--no-simulate"); err != nil {
		return err
	}
	if p.endpoints, err = workers.LoadEndpoints(p.program.Data); err != nil {
		return err
	}
	p.temporal, err = client.DialContext(ctx, client.Options{HostPort: p.endpoints.Temporal.Address, Namespace: p.endpoints.Temporal.Namespace, Logger: tlog.NewStructuredLogger(slog.New(slog.DiscardHandler))})
	if err != nil {
		return fmt.Errorf("temporal: %w", err)
	}
	c := olap.DefaultConfig()
	ch := p.endpoints.ClickHouse
	c.Addr, c.User, c.Password, c.Database = []string{ch.Native}, ch.User, ch.Password, ch.Database
	p.conn, err = olap.Open(ctx, c)
	return err
}

// down ends the platform, if it is up.
func (p *platform) down() (err error) {
	if p.temporal != nil {
		p.temporal.Close()
	}
	if p.conn != nil {
		err = p.conn.Close()
	}
	if p.stop != nil {
		err = errors.Join(err, p.stop())
	}
	p.temporal, p.conn, p.stop = nil, nil, nil
	return err
}

// nights reads workflow_runs, the oldest night first.
func (p *platform) nights(ctx context.Context) ([]olap.Night, error) {
	newest, err := olap.NewReader(p.conn, olap.DefaultReadLimits()).Nights(ctx, 1000)
	if err != nil {
		return nil, err
	}
	for i, j := 0, len(newest)-1; i < j; i, j = i+1, j-1 {
		newest[i], newest[j] = newest[j], newest[i]
	}
	return newest, nil
}

// until waits until ok is true of the nights, at most for so many nights.
func (p *platform) until(ctx context.Context, what string, periods int, ok func([]olap.Night) bool) ([]olap.Night, error) {
	deadline := time.Now().Add(time.Duration(periods) * p.period)
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		nights, err := p.nights(ctx)
		if err != nil {
			return nil, err
		}
		if ok(nights) {
			return nights, nil
		}
		if time.Now().After(deadline) {
			for _, n := range nights {
				fmt.Fprintf(os.Stderr, "  %s %s %s\n", n.Night, n.Outcome, n.Reason)
				for _, s := range n.Steps {
					fmt.Fprintf(os.Stderr, "    %s %s %s %v\n", s.Step, s.Outcome, s.Reason, s.Numbers)
				}
			}
			return nil, fmt.Errorf("timed out waiting until %s", what)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-tick.C:
		}
	}
}
