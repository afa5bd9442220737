package olap

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"millrace/internal/fault"
)

// Config says which server to use.
type Config struct {
	Addr        []string      `koanf:"addr" desc:"host:port of the native protocol; several are replicas of each other, tried in order"`
	User        string        `koanf:"user" desc:"user that owns the tables"`
	Password    string        `koanf:"password" desc:"its password" secret:"true"`
	Database    string        `koanf:"database" desc:"database of all tables"`
	Cluster     string        `koanf:"cluster" desc:"cluster on which tables are made replicated and distributed; empty: one server"`
	DialTimeout time.Duration `koanf:"dial_timeout" desc:"limit of connecting"`
	ReadTimeout time.Duration `koanf:"read_timeout" desc:"limit of waiting for the next packet of an answer"`
	MaxConns    int           `koanf:"max_conns" desc:"connections at most"`
}

// DefaultConfig is one server on this machine.
func DefaultConfig() Config {
	return Config{
		Addr: []string{"127.0.0.1:9000"}, User: "millrace", Database: "millrace",
		DialTimeout: 5 * time.Second, ReadTimeout: 60 * time.Second, MaxConns: 16,
	}
}

// Validate reports every problem.
func (c Config) Validate() error {
	var errs []error
	if len(c.Addr) == 0 {
		errs = append(errs, errors.New("addr: no server is named"))
	}
	for _, a := range c.Addr {
		if !strings.Contains(a, ":") {
			errs = append(errs, fmt.Errorf("addr: %q has no port", a))
		}
	}
	if !plainName(c.Database) {
		errs = append(errs, fmt.Errorf("database: %q is not a name of letters, digits and '_'", c.Database))
	}
	if c.Cluster != "" && !plainName(c.Cluster) {
		errs = append(errs, fmt.Errorf("cluster: %q is not a name of letters, digits and '_'", c.Cluster))
	}
	if c.DialTimeout <= 0 {
		errs = append(errs, fmt.Errorf("dial_timeout: %s is not above 0", c.DialTimeout))
	}
	if c.ReadTimeout <= 0 {
		errs = append(errs, fmt.Errorf("read_timeout: %s is not above 0", c.ReadTimeout))
	}
	if c.MaxConns < 1 {
		errs = append(errs, fmt.Errorf("max_conns: %d is below 1", c.MaxConns))
	}
	return errors.Join(errs...)
}

func plainName(s string) bool {
	for _, r := range s {
		if r != '_' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') {
			return false
		}
	}
	return s != ""
}

// codeUnknownDatabase is ClickHouse's error code UNKNOWN_DATABASE.
const codeUnknownDatabase = 81

// Open connects over the native protocol (LZ4) and proves it with a ping. A database that does not exist yet is created. The caller closes the connection.
func Open(ctx context.Context, cfg Config) (driver.Conn, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fault.New("MR-CFG-001", fmt.Errorf("clickhouse: %w", err))
	}
	conn, err := open(ctx, cfg, cfg.Database)
	if HasCode(err, codeUnknownDatabase) {
		if err = createDatabase(ctx, cfg); err == nil {
			conn, err = open(ctx, cfg, cfg.Database)
		}
	}
	if err != nil {
		return nil, fault.Newf("MR-CH-001", "connecting to ClickHouse at %s: %w", strings.Join(cfg.Addr, ", "), err)
	}
	return conn, nil
}

func open(ctx context.Context, cfg Config, database string) (driver.Conn, error) {
	conn, err := clickhouse.Open(&clickhouse.Options{
		Addr:            cfg.Addr,
		Auth:            clickhouse.Auth{Database: database, Username: cfg.User, Password: cfg.Password},
		Compression:     &clickhouse.Compression{Method: clickhouse.CompressionLZ4},
		DialTimeout:     cfg.DialTimeout,
		ReadTimeout:     cfg.ReadTimeout,
		MaxOpenConns:    cfg.MaxConns,
		MaxIdleConns:    cfg.MaxConns,
		ConnMaxLifetime: time.Hour,
	})
	if err != nil {
		return nil, err
	}
	if err := conn.Ping(ctx); err != nil {
		_ = conn.Close() // the ping's error says more
		return nil, err
	}
	return conn, nil
}

func createDatabase(ctx context.Context, cfg Config) error {
	conn, err := open(ctx, cfg, "")
	if err != nil {
		return err
	}
	stmt := "CREATE DATABASE IF NOT EXISTS " + cfg.Database
	if cfg.Cluster != "" {
		stmt += " ON CLUSTER " + cfg.Cluster
	}
	if err := conn.Exec(ctx, stmt+" ENGINE = Atomic"); err != nil {
		_ = conn.Close() // the statement's error says more
		return err
	}
	return conn.Close()
}

// Code is the error code that the server gave, 0 if err did not come from it.
func Code(err error) int32 {
	var ex *clickhouse.Exception
	if errors.As(err, &ex) {
		return ex.Code
	}
	return 0
}

// HasCode says whether err came from the server with this code.
func HasCode(err error, code int32) bool { return code != 0 && Code(err) == code }
