package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kgo"

	"millrace/internal/embedded/supervisor"
	"millrace/lakehouse"
	"millrace/olap"
	"millrace/workers"
)

// finding is one thing that doctor looked at.
type finding struct {
	What   string `json:"what"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail"`
}

func (a *app) doctor() *cobra.Command {
	c := &cobra.Command{
		Use: "doctor", Short: "Look for what keeps the platform from working here", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			found := a.examine(c.Context())
			bad := 0
			rows := [][]string{}
			for _, f := range found {
				mark := "ok"
				if !f.OK {
					mark = "FAIL"
					bad++
				}
				rows = append(rows, []string{mark, f.What, f.Detail})
			}
			var err error
			if a.output == "json" {
				err = a.json(found)
			} else {
				err = a.table(rows)
			}
			if err == nil && bad > 0 {
				err = fmt.Errorf("%d of %d checks failed", bad, len(found))
			}
			return err
		},
	}
	a.outputs(c, "table", "json")
	return c
}

// examine looks at this machine, the configuration, and every part that is configured or running.
func (a *app) examine(ctx context.Context) []finding {
	var out []finding
	add := func(what string, err error, detail string) {
		f := finding{What: what, OK: err == nil, Detail: detail}
		if err != nil {
			f.Detail = err.Error()
		}
		out = append(out, f)
	}
	cfg, err := a.load(true)
	add("configuration", err, "read")
	if err != nil {
		return out
	}
	var platform error
	if runtime.GOOS != "linux" || runtime.GOARCH != "amd64" {
		platform = errors.New("embedded servers need linux/amd64: configure addresses")
	}
	add("machine", platform, fmt.Sprintf("%s/%s, %d CPUs", runtime.GOOS, runtime.GOARCH, runtime.NumCPU()))
	add("disk of "+cfg.Data, supervisor.CheckSpace(existing(cfg.Data)), "2 GiB and more free")
	for _, t := range []struct{ tool, why string }{{"java", "Apache Kafka (else kfake)"}, {"mvn", "installing Apache Kafka (else kfake)"}, {"npm", "installing ClickHouse"}, {"go", "building Temporal"}} {
		path, err := exec.LookPath(t.tool)
		if err != nil {
			path = "not found: needed once for " + t.why
		}
		out = append(out, finding{"tool " + t.tool, true, path})
	}
	check := func(what, addr string, f func(context.Context) error) {
		if addr == "" {
			out = append(out, finding{what, true, "not configured and not running"})
			return
		}
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		add(what, f(ctx), addr)
	}
	check("kafka", strings.Join(cfg.Kafka.Brokers, ","), func(ctx context.Context) error {
		cl, err := kgo.NewClient(cfg.Kafka.Options()...)
		if err != nil {
			return err
		}
		defer cl.Close()
		return cl.Ping(ctx)
	})
	check("schema registry", cfg.SchemaRegistry.URL, func(ctx context.Context) error { return get(ctx, cfg.SchemaRegistry.URL+"/subjects") })
	check("clickhouse", strings.Join(cfg.ClickHouse.Addr, ","), func(ctx context.Context) error {
		conn, err := olap.Open(ctx, cfg.ClickHouse)
		if err != nil {
			return err
		}
		return errors.Join(conn.Ping(ctx), conn.Close())
	})
	check("redis", strings.Join(cfg.Redis.Addr, ","), func(ctx context.Context) error {
		rdb := redis.NewUniversalClient(workers.RedisOptions(cfg.Redis))
		return errors.Join(rdb.Ping(ctx).Err(), rdb.Close())
	})
	check("iceberg catalog", cfg.Iceberg.CatalogURI, func(ctx context.Context) error {
		cat, err := lakehouse.Open(ctx, cfg.Iceberg)
		if err != nil {
			return err
		}
		_, err = cat.Tables(ctx)
		return errors.Join(err, cat.Close())
	})
	check("iceberg warehouse", cfg.Iceberg.Warehouse, func(ctx context.Context) error {
		cat, err := lakehouse.Open(ctx, cfg.Iceberg)
		if err != nil {
			return err
		}
		return errors.Join(cat.CheckStore(ctx), cat.Close())
	})
	if e, err := workers.LoadEndpoints(cfg.Data); err == nil {
		check("gateway", e.Gateway, func(ctx context.Context) error { return get(ctx, e.Gateway+"/readyz") })
		check("temporal ui", e.Temporal.UI, func(ctx context.Context) error { return get(ctx, e.Temporal.UI) })
	}
	return out
}

// existing is the deepest folder of path that is there.
func existing(path string) string {
	for {
		if _, err := os.Stat(path); err == nil || path == filepath.Dir(path) {
			return path
		}
		path = filepath.Dir(path)
	}
}

func get(ctx context.Context, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }() // only the status counts
	if resp.StatusCode >= 400 {
		return fmt.Errorf("%s answers %s", url, resp.Status)
	}
	return nil
}
