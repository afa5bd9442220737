package embedded

import (
	"context"
	"fmt"
	"path/filepath"
	"strconv"
	"time"

	"millrace/internal/embedded/supervisor"
)

// databaseName is one name everywhere: ClickHouse, Iceberg, BigQuery.
const databaseName = "millrace"

func (p *Platform) clickHouse(ctx context.Context) (Child, error) {
	ports, err := p.folder.Ports.Range(ctx, "clickhouse-native", "clickhouse-http")
	if err != nil {
		return Child{}, err
	}
	server := ClickHouse{
		Native: local(ports[0]), HTTP: "http://" + local(ports[1]),
		User: "millrace", Password: p.secrets.ClickHousePassword,
		Reader: "reader", ReaderPassword: p.secrets.ClickHouseReaderPassword,
		Database: databaseName,
	}
	p.endpoints.ClickHouse = server
	dir := clickHouseDir(filepath.Join(p.opts.DataDir, "clickhouse"))
	var library string
	return Child{
		Name:  ClickHouseChild,
		Ports: []string{"clickhouse-native", "clickhouse-http"},
		Prepare: func(ctx context.Context, note func(string)) (err error) {
			if library, err = p.installer(note).ClickHouse(ctx); err != nil {
				return err
			}
			note("")
			return dir.write(supervisor.LogFile(p.opts.DataDir, "clickhouse-engine"), p.secrets)
		},
		Command: func(context.Context) (Command, error) {
			c := p.self("clickhouse", "-library", library, "-path", dir.data(), "-config", dir.config(),
				"-tcp-port", strconv.Itoa(ports[0]), "-http-port", strconv.Itoa(ports[1]))
			c.Env = []string{"TERM=dumb"}
			c.Dir = "/" // from any other folder the engine refuses paths of Iceberg tables
			return c, nil
		},
		Healthy:       func(ctx context.Context) error { return clickHouseReady(ctx, server) },
		HealthTimeout: 2 * time.Minute, // the engine is half a gigabyte to read, and attaches every part
		Grace:         20 * time.Second,
	}, nil
}

// clickHouseReady proves that it is our server that answers, by the password, that
// it listens for native clients, and makes the database if it is not there.
func clickHouseReady(ctx context.Context, server ClickHouse) error {
	exists, err := server.Query(ctx, "EXISTS DATABASE "+databaseName)
	if err != nil {
		return err
	}
	if exists != "1" {
		if _, err := server.Query(ctx, "CREATE DATABASE IF NOT EXISTS "+databaseName+" ENGINE = Atomic"); err != nil {
			return fmt.Errorf("creating the database: %w", err)
		}
	}
	return supervisor.DialTCP(ctx, server.Native)
}
