package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	_ "modernc.org/sqlite" // the catalog that a drill locks

	"millrace/internal/embedded"
	"millrace/workers"
)

// scenario is one drill on a platform of its own.
type scenario struct {
	name   string
	broker string
	events int
	rate   int // 0: as fast as possible
	during func(ctx context.Context, p *platform) error
	after  func(ctx context.Context, p *platform) error
}

func scenarios(full bool) []scenario {
	events, outage := 20_000, 10*time.Second
	if full {
		events, outage = 200_000, 60*time.Second
	}
	out := []scenario{
		{name: "path/kfake", broker: embedded.BrokerKfake, events: events, after: documents},
		{name: "path/apache", broker: embedded.BrokerApache, events: events},
		{name: "kill-roles/apache", broker: embedded.BrokerApache, events: events, rate: 4000, during: killRoles},
	}
	if !full {
		return out
	}
	out = append(out, scenario{name: "kill-tree/apache", broker: embedded.BrokerApache, events: events, rate: 4000, during: killTree})
	children := append(workers.RoleNames(), embedded.ClickHouseChild, embedded.RedisChild, embedded.KafkaChild)
	for _, c := range children {
		out = append(out, scenario{name: "kill/" + c, broker: embedded.BrokerApache, events: events, rate: 6000, during: kill(c)})
	}
	for _, c := range []string{embedded.KafkaChild, embedded.ClickHouseChild, embedded.RedisChild} {
		out = append(out, scenario{name: "away/" + c, broker: embedded.BrokerApache, events: events, rate: events / int(2*outage.Seconds()), during: away(c, outage)})
	}
	return append(out, scenario{name: "away/" + catalogAway, broker: embedded.BrokerApache, events: events, rate: events / int(2*outage.Seconds()), during: lockCatalog(outage)})
}

func runScenario(ctx context.Context, bin string, s scenario, keep bool, out io.Writer) (err error) {
	dir, err := os.MkdirTemp("", "millrace-e2e-")
	if err != nil {
		return err
	}
	p := &platform{bin: bin, dir: dir, broker: s.broker, out: out}
	defer func() {
		err = errors.Join(err, p.down(context.WithoutCancel(ctx)))
		if err == nil && !keep {
			err = os.RemoveAll(dir)
		} else {
			_, _ = fmt.Fprintf(out, "    data kept in %s\n", dir) // progress
		}
	}()
	if err := p.up(ctx); err != nil {
		return err
	}
	args := []string{"--events", strconv.Itoa(s.events), "--seed", "7"}
	if s.rate > 0 {
		args = append(args, "--rate", strconv.Itoa(s.rate))
	}
	t, err := p.send(ctx, args...)
	if err != nil {
		return err
	}
	if s.during != nil {
		if err := s.during(ctx, p); err != nil {
			_ = t.cmd.Process.Kill() // the drill failed
			return err
		}
	}
	sum, err := t.wait()
	if err != nil {
		return err
	}
	if err := p.verify(ctx, sum); err != nil || s.after == nil {
		return err
	}
	return s.after(ctx, p)
}

// after waits for about a third of a scenario's traffic.
func after(ctx context.Context, p *platform, events uint64) error {
	cfg, err := p.config()
	if err != nil {
		return err
	}
	return eventually(ctx, 2*time.Minute, func() error {
		n, err := acceptedEvents(ctx, p)
		if err != nil {
			return err
		}
		if n < events {
			return fmt.Errorf("%d events accepted so far on %s", n, cfg.Data)
		}
		return nil
	})
}

func killTree(ctx context.Context, p *platform) error {
	if err := after(ctx, p, 3000); err != nil {
		return err
	}
	p.killTree()
	return p.up(ctx)
}

func kill(child string) func(context.Context, *platform) error {
	return func(ctx context.Context, p *platform) error {
		for range 3 {
			if err := after(ctx, p, 3000); err != nil {
				return err
			}
			pids, err := p.pids(ctx)
			if err != nil {
				return err
			}
			pid := pids[child]
			if pid == 0 {
				return fmt.Errorf("%s does not run", child)
			}
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				return err
			}
			err = eventually(ctx, 2*time.Minute, func() error {
				now, err := p.pids(ctx)
				if err == nil && (now[child] == 0 || now[child] == pid) {
					err = fmt.Errorf("%s has not been started again", child)
				}
				return err
			})
			if err != nil {
				return err
			}
		}
		return p.healthy(ctx)
	}
}

func (p *platform) healthy(ctx context.Context) error {
	return eventually(ctx, 3*time.Minute, func() error {
		client, err := embedded.Dial(ctx, p.dir)
		if err != nil {
			return err
		}
		r, err := client.Status(ctx)
		if err != nil {
			return err
		}
		for _, s := range r.Children {
			if !s.Optional && s.Phase != "healthy" {
				return fmt.Errorf("%s is %s: %s", s.Name, s.Phase, s.LastError)
			}
		}
		return nil
	})
}

func away(child string, outage time.Duration) func(context.Context, *platform) error {
	return func(ctx context.Context, p *platform) error {
		if err := after(ctx, p, 3000); err != nil {
			return err
		}
		if _, err := p.call(ctx, "child", "stop", child); err != nil {
			return err
		}
		if err := p.othersGoOn(ctx, child, outage); err != nil {
			return err
		}
		if _, err := p.call(ctx, "child", "start", child); err != nil {
			return err
		}
		if err := p.noServerErrors(ctx); err != nil {
			return err
		}
		return p.healthy(ctx)
	}
}

func lockCatalog(outage time.Duration) func(context.Context, *platform) error {
	return func(ctx context.Context, p *platform) error {
		if err := after(ctx, p, 3000); err != nil {
			return err
		}
		e, err := p.endpoints()
		if err != nil {
			return err
		}
		path := filepath.Clean(strings.TrimPrefix(e.Iceberg.CatalogURI, "sqlite:///"))
		db, err := sql.Open("sqlite", path+"?_pragma=busy_timeout(30000)")
		if err != nil {
			return err
		}
		defer func() { _ = db.Close() }() // unlocks
		conn, err := db.Conn(ctx)
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close() }() // unlocks
		if _, err := conn.ExecContext(ctx, "BEGIN EXCLUSIVE"); err != nil {
			return err
		}
		if err := p.othersGoOn(ctx, catalogAway, outage); err != nil {
			return err
		}
		if _, err := conn.ExecContext(ctx, "ROLLBACK"); err != nil {
			return err
		}
		return p.noServerErrors(ctx)
	}
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// killRoles is kill -9 of all our processes but the supervisor, at once.
func killRoles(ctx context.Context, p *platform) error {
	if err := after(ctx, p, 3000); err != nil {
		return err
	}
	pids, err := p.pids(ctx)
	if err != nil {
		return err
	}
	for _, role := range workers.RoleNames() {
		if pids[role] == 0 {
			return fmt.Errorf("%s does not run", role)
		}
		if err := syscall.Kill(pids[role], syscall.SIGKILL); err != nil {
			return err
		}
	}
	return p.healthy(ctx)
}
