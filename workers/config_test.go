package workers

import (
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"millrace/internal/fault"
	"millrace/lakehouse"
)

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "millrace.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestLaterSourcesWin(t *testing.T) {
	path := write(t, "kafka:\n  brokers: [file:1]\n  partitions: 8\nstream:\n  commit_interval: 25ms\ngateway:\n  sources:\n    - {key: k1, source: web, tenant: acme}\n")
	t.Setenv("MILLRACE_KAFKA__BROKERS", "env:1,env:2")
	t.Setenv("MILLRACE_KAFKA__TLS", "true")
	cfg, err := Load(path, map[string]any{"kafka.partitions": "12"})
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(cfg.Kafka.Brokers, " "); got != "env:1 env:2" || !cfg.Kafka.TLS {
		t.Errorf("brokers %q, TLS %v: the environment must win over the file", got, cfg.Kafka.TLS)
	}
	if cfg.Kafka.Partitions != 12 || cfg.Stream.CommitInterval != 25*time.Millisecond || cfg.Kafka.ClientID != "millrace" {
		t.Errorf("partitions %d, commit interval %s, client id %q", cfg.Kafka.Partitions, cfg.Stream.CommitInterval, cfg.Kafka.ClientID)
	}
	if len(cfg.Gateway.Sources) != 1 || cfg.Gateway.Sources[0].Tenant != "acme" {
		t.Errorf("sources %+v", cfg.Gateway.Sources)
	}
}

func TestUnknownKeysAndWrongTypesFailByName(t *testing.T) {
	for name, c := range map[string]struct{ file, env, want string }{
		"unknown key in the file":        {file: "kafka:\n  broker: x", want: "unknown key kafka.broker (did you mean kafka.brokers?)"},
		"unknown section":                {file: "kafak: {}", want: "unknown key kafak"},
		"unknown key in the environment": {env: "MILLRACE_STREAM__COMIT_INTERVAL", want: "unknown key stream.comit_interval (did you mean stream.commit_interval?)"},
		"duration that is none":          {file: "stream:\n  commit_interval: soon", want: "commit_interval"},
		"number that is none":            {file: "kafka:\n  partitions: many", want: "partitions"},
		"no YAML":                        {file: "kafka: [", want: "yaml"},
	} {
		t.Run(name, func(t *testing.T) {
			if c.env != "" {
				t.Setenv(c.env, "1s")
			}
			_, err := Load(write(t, c.file), nil)
			if id, _ := fault.IDOf(err); id != "MR-CFG-001" || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want MR-CFG-001 with %q", err, c.want)
			}
		})
	}
	if _, err := Load(filepath.Join(t.TempDir(), "none.yaml"), nil); err == nil {
		t.Error("a named file that does not exist is no error")
	}
}

func TestSecretsAreMasked(t *testing.T) {
	cfg, err := Load(write(t, "kafka:\n  password: hunter2\ngateway:\n  sources:\n    - {key: hunter2, source: web, tenant: acme}\n"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if out := cfg.Print(); strings.Contains(out, "hunter2") || !strings.Contains(out, `password: "***"`) {
		t.Errorf("printed:\n%s", out)
	}
}

func TestPropertiesOfAStoreAreReadInEveryForm(t *testing.T) {
	path := write(t, "iceberg:\n  store:\n    s3.region: eu\n    s3.endpoint: http://file\n    gcs: {no-auth: true}\n  catalog_properties: {header.X-Realm: r}\n")
	t.Setenv("MILLRACE_ICEBERG__STORE__S3__ACCESS_KEY_ID", "hunter2")
	cfg, err := Load(path, map[string]any{"iceberg.store.s3.secret-access-key": "env:SECRET", "iceberg.store.s3.endpoint": "http://flag"})
	if err != nil {
		t.Fatal(err)
	}
	want := lakehouse.Settings{"s3.region": "eu", "s3.endpoint": "http://flag", "gcs.no-auth": "true", "s3.access-key-id": "hunter2", "s3.secret-access-key": "env:SECRET"}
	if !maps.Equal(cfg.Iceberg.Store, want) || cfg.Iceberg.CatalogProperties["header.X-Realm"] != "r" {
		t.Errorf("store %#v, catalog %#v", map[string]string(cfg.Iceberg.Store), map[string]string(cfg.Iceberg.CatalogProperties))
	}
	out := cfg.Print()
	if strings.Contains(out, "hunter2") || !strings.Contains(out, "env:SECRET") || !strings.Contains(out, "http://flag") {
		t.Errorf("printed:\n%s", out)
	}
	again, err := Load(write(t, out), nil)
	if err != nil || again.Iceberg.Store["s3.region"] != "eu" || again.Iceberg.Store["s3.endpoint"] != "http://flag" {
		t.Errorf("read back: %v %v", again.Iceberg.Store, err)
	}
}

func TestPlatformsTellCommandsWhereTheirLakehouseIs(t *testing.T) {
	lake := lakehouse.DefaultConfig()
	lake.CatalogURI, lake.Warehouse, lake.CatalogToken, lake.CatalogWarehouse = "https://catalog", "s3://b/p", "env:TOKEN", "acme"
	lake.Store, lake.CatalogProperties = lakehouse.Settings{"s3.region": "eu"}, lakehouse.Settings{"prefix": "p"}
	dir := t.TempDir()
	if err := (Endpoints{Version: 1, Iceberg: IcebergEndpointOf(lake)}).Save(dir); err != nil {
		t.Fatal(err)
	}
	e, err := LoadEndpoints(dir)
	if err != nil {
		t.Fatal(err)
	}
	cfg := DefaultConfig()
	cfg.Fill(e)
	cfg.Iceberg.BusyTimeout = lake.BusyTimeout
	if !reflect.DeepEqual(cfg.Iceberg, lake) {
		t.Errorf("%+v", cfg.Iceberg)
	}
	cfg = DefaultConfig()
	cfg.Iceberg.Warehouse = "gs://b"
	cfg.Fill(Endpoints{})
	if cfg.Iceberg.Warehouse != "gs://b" || cfg.Iceberg.CatalogName != "millrace" {
		t.Errorf("nothing runs, but %+v", cfg.Iceberg)
	}
}

func TestPrintedConfigurationIsReadBack(t *testing.T) {
	want := DefaultConfig()
	want.Kafka.Brokers = []string{"a:1"}
	got, err := Load(write(t, want.Print()), nil)
	if err != nil {
		t.Fatal(err)
	}
	if got.Print() != want.Print() {
		t.Errorf("read back:\n%s\nwant:\n%s", got.Print(), want.Print())
	}
}

func TestValidateNamesEveryProblem(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Kafka.Partitions, cfg.Log.Level = 0, "loud"
	err := cfg.Validate([]string{"stream"})
	for _, want := range []string{"brokers: must not be empty", "partitions: 0", "schema_registry.url", "loud"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in %v", want, err)
		}
	}
	if strings.Contains(err.Error(), "clickhouse") {
		t.Errorf("a role that needs no ClickHouse complains of it: %v", err)
	}
}

func TestEveryKeyIsDescribed(t *testing.T) {
	for _, k := range DefaultConfig().Keys() {
		if k.Desc == "" {
			t.Errorf("%s has no description", k.Path)
		}
	}
}

func TestTopicsFollowTheTable(t *testing.T) {
	k := DefaultConfig().Kafka
	k.Compaction = false
	for _, topic := range k.topics(nil) {
		if policy := *topic.configs["cleanup.policy"]; policy != "delete" {
			t.Errorf("%s is %s where the broker must not compact", topic.name, policy)
		}
		if strings.HasPrefix(topic.name, "raw.") && (topic.configs["message.timestamp.type"] == nil || topic.partitions != k.Partitions) {
			t.Errorf("%s: broker time and N partitions are what ingested_at and the tasks rest on", topic.name)
		}
	}
}
