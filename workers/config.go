package workers

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"time"

	"github.com/go-viper/mapstructure/v2"
	"github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/providers/confmap"
	"github.com/knadh/koanf/providers/env/v2"
	"github.com/knadh/koanf/providers/file"
	"github.com/knadh/koanf/v2"

	"millrace/activities"
	"millrace/api"
	"millrace/event/registry"
	"millrace/gateway"
	"millrace/internal/fault"
	"millrace/internal/telemetry"
	"millrace/kpi"
	"millrace/lakehouse"
	"millrace/lakehouse/bigquery"
	"millrace/olap"
	"millrace/streaming"
	"millrace/streaming/hot"
	"millrace/streaming/sink"
)

// Config is everything that can be set. It is read from, later over earlier: defaults, the configuration file, the environment, flags.
type Config struct {
	// Where the values come from, for processes that are to have the same: the file's absolute path ("" without one) and the flags.
	File  string         `koanf:"-"`
	Flags map[string]any `koanf:"-"`

	Data           string                   `koanf:"data" desc:"data directory of this machine: spool, keys, state, and the embedded servers"`
	WriteKey       string                   `koanf:"write_key" desc:"write key of the one source (tenant default, source web) that there is while gateway.sources is empty" secret:"true"`
	Log            LogConfig                `koanf:"log"`
	Admin          AdminConfig              `koanf:"admin"`
	Telemetry      telemetry.Config         `koanf:"telemetry"`
	Kafka          KafkaConfig              `koanf:"kafka"`
	SchemaRegistry SchemaRegistry           `koanf:"schema_registry"`
	ClickHouse     olap.Config              `koanf:"clickhouse"`
	Redis          RedisConfig              `koanf:"redis"`
	Iceberg        lakehouse.Config         `koanf:"iceberg"`
	BigQuery       bigquery.Config          `koanf:"bigquery"`
	Temporal       TemporalConfig           `koanf:"temporal"`
	Batch          BatchConfig              `koanf:"batch"`
	Erasure        activities.ErasureConfig `koanf:"erasure"`
	Lineage        activities.LineageConfig `koanf:"lineage"`
	Gateway        gateway.Config           `koanf:"gateway"`
	API            api.Config               `koanf:"api"`
	Registry       RegistryConfig           `koanf:"registry"`
	Stream         streaming.Config         `koanf:"stream"`
	Hot            hot.Config               `koanf:"hot"`
	KPI            kpi.Config               `koanf:"kpi"`
	Sink           SinkConfig               `koanf:"sink"`
	Alerts         sink.AlertsConfig        `koanf:"alerts"`
}

// LogConfig is how processes log, always to stderr.
type LogConfig struct {
	Level  string `koanf:"level" desc:"debug, info, warn or error"`
	Format string `koanf:"format" desc:"json or text"`
}

// AdminConfig is the HTTP server that every role has for health and metrics.
type AdminConfig struct {
	Listen string `koanf:"listen" desc:"address of /healthz, /readyz and /metrics; empty: none"`
}

// KafkaConfig is how to reach the broker and how topics are made.
type KafkaConfig struct {
	Brokers         []string `koanf:"brokers" desc:"seed brokers, host:port"`
	ClientID        string   `koanf:"client_id" desc:"client id in the broker's logs and quotas"`
	TLS             bool     `koanf:"tls" desc:"connect with TLS, by the system's roots"`
	SASLMechanism   string   `koanf:"sasl_mechanism" desc:"PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512; empty: none"`
	Username        string   `koanf:"username" desc:"SASL user"`
	Password        string   `koanf:"password" desc:"SASL password" secret:"true"`
	Partitions      int32    `koanf:"partitions" desc:"N, the one number of partitions of all topics of the hot path; stored with the state, refused if changed"`
	Replication     int16    `koanf:"replication" desc:"replicas of each partition; min.insync.replicas is one less, at least 1"`
	Generation      uint16   `koanf:"generation" desc:"topic generation: raised when the topics are made anew"`
	Compaction      bool     `koanf:"compaction" desc:"the broker compacts safely; false on kfake, where compacted topics keep everything"`
	MaxMessageBytes int      `koanf:"max_message_bytes" desc:"largest record batch"`
	CreateTopics    bool     `koanf:"create_topics" desc:"create missing topics at start"`
}

// RegistryConfig is the registry role.
type RegistryConfig struct {
	Listen        string `koanf:"listen" desc:"address to listen on"`
	Topic         string `koanf:"topic" desc:"topic that holds the schemas"`
	Compatibility string `koanf:"compatibility" desc:"global level until one is set through the API"`
	MaxSubjects   int    `koanf:"max_subjects" desc:"subjects at most"`
	MaxVersions   int    `koanf:"max_versions" desc:"versions of a subject at most"`
}

// SchemaRegistry is the registry that all roles ask.
type SchemaRegistry struct {
	URL      string `koanf:"url" desc:"address of a Confluent-compatible registry"`
	Username string `koanf:"username" desc:"basic auth"`
	Password string `koanf:"password" desc:"basic auth" secret:"true"`
}

// RedisConfig is how to reach Redis.
type RedisConfig struct {
	Addr     []string `koanf:"addr" desc:"host:port; several are a cluster"`
	Username string   `koanf:"username" desc:"ACL user"`
	Password string   `koanf:"password" desc:"its password" secret:"true"`
	DB       int      `koanf:"db" desc:"database number, 0 on a cluster"`
}

// TemporalConfig is how to reach Temporal.
type TemporalConfig struct {
	Address   string        `koanf:"address" desc:"host:port of the frontend"`
	Namespace string        `koanf:"namespace" desc:"namespace of all workflows"`
	UI        string        `koanf:"ui" desc:"address of the web UI, for links"`
	Retention time.Duration `koanf:"retention" desc:"how long Temporal keeps closed workflows; set on every start"`

	TLS               TemporalTLS        `koanf:"tls"`
	APIKeyFile        string             `koanf:"api_key_file" desc:"file with the key that is sent with each call; with it TLS is used; empty: none"`
	EncryptionKeyFile string             `koanf:"encryption_key_file" desc:"file of mode 0600 with the keys that encrypt what Temporal stores, a line each: id:base64 of 32 bytes; the first encrypts, all decrypt; empty: not encrypted"`
	CodecTokenFile    string             `koanf:"codec_token_file" desc:"file with the secret part of the address /codec/<token> at which the api role decrypts for the Temporal UI; empty: it does not"`
	Deployment        TemporalDeployment `koanf:"deployment"`
}

// SinkConfig holds the sinks.
type SinkConfig struct {
	ClickHouse sink.ClickHouseConfig `koanf:"clickhouse"`
	Iceberg    sink.IcebergConfig    `koanf:"iceberg"`
	Redis      sink.RedisConfig      `koanf:"redis"`
}

// DefaultConfig has values for one machine, without addresses.
func DefaultConfig() Config {
	c := Config{
		Data:     ".millrace",
		Log:      LogConfig{Level: "info", Format: "json"},
		Kafka:    KafkaConfig{ClientID: "millrace", Partitions: 4, Replication: 1, Compaction: true, MaxMessageBytes: 4 << 20, CreateTopics: true},
		Temporal: TemporalConfig{Namespace: "default", Retention: 30 * 24 * time.Hour},
		Batch:    DefaultBatchConfig(),
		Erasure:  activities.DefaultErasureConfig(),
		Lineage:  activities.DefaultLineageConfig(),

		Telemetry:  telemetry.DefaultConfig(),
		ClickHouse: olap.DefaultConfig(),
		Iceberg:    lakehouse.DefaultConfig(),
		BigQuery:   bigquery.DefaultConfig(),
		Gateway:    gateway.DefaultConfig(),
		API:        api.DefaultConfig(),
		Registry:   defaultRegistry(),
		Stream:     streaming.DefaultConfig(),
		Hot:        hot.DefaultConfig(),
		KPI:        kpi.DefaultConfig(),
		Alerts:     sink.DefaultAlertsConfig(),
		Sink:       SinkConfig{ClickHouse: sink.DefaultClickHouseConfig(), Iceberg: sink.DefaultIcebergConfig(), Redis: sink.DefaultRedisConfig()},
	}
	// Without an address the embedded servers are used.
	c.ClickHouse.Addr, c.Iceberg.CatalogURI, c.Iceberg.Warehouse = nil, "", ""
	return c
}

// complete sets what follows from other keys: folders below the data directory, the one number of partitions, the one source.
func (c Config) complete() Config {
	if c.Gateway.DataDir == "" {
		c.Gateway.DataDir = filepath.Join(c.Data, "gateway")
	}
	if c.Hot.Dir == "" {
		c.Hot.Dir = filepath.Join(c.Data, "stream")
	}
	if c.Telemetry.Endpoint == "" {
		c.Telemetry.Endpoint = os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT") // where every program that is traced looks
	}
	if c.Batch.Dir == "" {
		c.Batch.Dir = filepath.Join(c.Data, "batch")
		if abs, err := filepath.Abs(c.Batch.Dir); err == nil { // else Validate says so
			c.Batch.Dir = abs
		}
	}
	if c.Erasure.Dir == "" {
		c.Erasure.Dir = filepath.Join(c.Data, "erasure")
		if abs, err := filepath.Abs(c.Erasure.Dir); err == nil { // else Validate says so
			c.Erasure.Dir = abs
		}
	}
	c.Gateway.Partitions = c.Kafka.Partitions
	if len(c.Gateway.Sources) == 0 && c.WriteKey != "" {
		c.Gateway.Sources = []gateway.Source{{Key: c.WriteKey, Name: "web", Tenant: "default", AllowReplay: true}}
	}
	return c
}

func defaultRegistry() RegistryConfig {
	d := registry.Config{}.Defaults()
	return RegistryConfig{Listen: "127.0.0.1:8081", Topic: d.Topic, Compatibility: d.Compatibility, MaxSubjects: d.MaxSubjects, MaxVersions: d.MaxVersions}
}

// registryConfig is the role's configuration in the registry's terms.
func (c Config) registryConfig() registry.Config {
	r := c.Registry
	policy := map[string]string{"cleanup.policy": "compact"}
	if !c.Kafka.Compaction {
		policy = map[string]string{"cleanup.policy": "delete", "retention.ms": "-1"}
	}
	return registry.Config{Topic: r.Topic, TopicConfigs: policy, ReplicationFactor: c.Kafka.Replication, Compatibility: r.Compatibility, MaxSubjects: r.MaxSubjects, MaxVersions: r.MaxVersions}.Defaults()
}

// EnvPrefix begins every variable of the environment that sets a key: MILLRACE_KAFKA__BROKERS sets kafka.brokers.
const EnvPrefix = "MILLRACE_"

// reservedEnv are variables with the prefix that set no key.
var reservedEnv = map[string]bool{"MILLRACE_DATA": true, "MILLRACE_CONFIG": true, "MILLRACE_CACHE": true, "MILLRACE_FAILPOINTS": true, "MILLRACE_CHILD": true, "MILLRACE_SUPERVISED": true, "MILLRACE_BIN": true, "MILLRACE_NO_BIGQUERY_EMULATOR": true}

// Load reads the configuration. path is the file ("": $MILLRACE_CONFIG, else millrace.yaml in the working directory if there is one); overrides are flags, by key.
// Unknown keys and values of a wrong type are errors that name the key.
func Load(path string, overrides map[string]any) (Config, error) {
	cfg := DefaultConfig()
	k := koanf.New(".")
	explicit := path != ""
	if !explicit {
		if path = os.Getenv("MILLRACE_CONFIG"); path != "" {
			explicit = true
		} else {
			path = "millrace.yaml"
		}
	}
	err := k.Load(file.Provider(path), yaml.Parser())
	switch {
	case err == nil:
		cfg.File, err = filepath.Abs(path)
	case !explicit && errors.Is(err, fs.ErrNotExist):
		err = nil
	}
	if err != nil {
		return cfg, fault.Newf("MR-CFG-001", "configuration file %s: %w", path, err)
	}
	cfg.Flags = overrides
	err = k.Load(env.Provider(".", env.Opt{Prefix: EnvPrefix, TransformFunc: func(key, v string) (string, any) {
		if reservedEnv[key] {
			return "", nil
		}
		return strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(key, EnvPrefix), "__", ".")), v
	}}), nil)
	if err != nil {
		return cfg, fault.Newf("MR-CFG-001", "environment: %w", err)
	}
	if err := k.Load(confmap.Provider(overrides, "."), nil); err != nil {
		return cfg, fault.Newf("MR-CFG-001", "flags: %w", err)
	}
	if d := os.Getenv("MILLRACE_DATA"); d != "" && !k.Exists("data") {
		cfg.Data = d
	}
	err = k.UnmarshalWithConf("", &cfg, koanf.UnmarshalConf{DecoderConfig: &mapstructure.DecoderConfig{
		TagName: "koanf", Result: &cfg, ErrorUnused: true, WeaklyTypedInput: true, MatchName: func(a, b string) bool { return a == b },
		DecodeHook: mapstructure.ComposeDecodeHookFunc(mapstructure.DecodeHookFuncType(settingsHook), mapstructure.StringToTimeDurationHookFunc(), mapstructure.StringToSliceHookFunc(","), mapstructure.TextUnmarshallerHookFunc()),
	}})
	if err != nil {
		return cfg, fault.Newf("MR-CFG-001", "configuration: %w", explain(err))
	}
	return cfg, nil
}

// explain puts the decoder's findings into our words: the nearest known key stands beside an unknown one.
func explain(err error) error {
	var all []string
	for line := range strings.SplitSeq(err.Error(), "\n") {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "decoding failed") {
			continue
		}
		if at, rest, ok := strings.Cut(line, " has invalid keys: "); ok {
			at = strings.TrimPrefix(strings.Trim(at, "'"), "workers.Config")
			for key := range strings.SplitSeq(rest, ", ") {
				full := strings.TrimPrefix(at+"."+key, ".")
				msg := "unknown key " + full
				if near := nearest(full); near != "" {
					msg += " (did you mean " + near + "?)"
				}
				all = append(all, msg)
			}
			continue
		}
		all = append(all, line)
	}
	return errors.New(strings.Join(all, "; "))
}

// Key is one key of the configuration, as docs/CONFIG.md lists them.
type Key struct {
	Path   string
	Env    string
	Type   string
	Value  string
	Desc   string
	Secret bool
}

// Keys lists every key of c with its value, secrets masked.
func (c Config) Keys() []Key {
	var out []Key
	walk(reflect.ValueOf(c), "", &out)
	return out
}

func walk(v reflect.Value, prefix string, out *[]Key) {
	t := v.Type()
	for i := range t.NumField() {
		f := t.Field(i)
		name := f.Tag.Get("koanf")
		if name == "" || name == "-" || !f.IsExported() {
			continue
		}
		path := strings.TrimPrefix(prefix+"."+name, ".")
		fv := v.Field(i)
		if fv.Kind() == reflect.Struct {
			walk(fv, path, out)
			continue
		}
		k := Key{Path: path, Env: EnvPrefix + strings.ToUpper(strings.ReplaceAll(path, ".", "__")), Type: typeName(f.Type), Value: render(fv), Desc: f.Tag.Get("desc")}
		if k.Path == "data" {
			k.Env = "MILLRACE_DATA"
		}
		if k.Secret = f.Tag.Get("secret") == "true"; k.Secret && k.Value != `""` {
			k.Value = `"***"`
		}
		*out = append(*out, k)
	}
}

func typeName(t reflect.Type) string {
	switch {
	case t == reflect.TypeFor[time.Duration]():
		return "duration"
	case t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Struct:
		return "list of objects"
	case t.Kind() == reflect.Slice:
		return "list"
	case t.Kind() == reflect.Map:
		return "map"
	case t.Kind() >= reflect.Int && t.Kind() <= reflect.Uint64:
		return "integer"
	case t.Kind() == reflect.Float64:
		return "number"
	}
	return t.Kind().String()
}

// Print writes c as YAML with every key, secrets masked.
func (c Config) Print() string {
	var b strings.Builder
	var at []string
	for _, k := range c.Keys() {
		parts := strings.Split(k.Path, ".")
		dirs := parts[:len(parts)-1]
		for i, d := range dirs {
			if i < len(at) && at[i] == d {
				continue
			}
			at = at[:min(i, len(at))]
			fmt.Fprintf(&b, "%s%s:\n", strings.Repeat("  ", i), d)
			at = append(at, d)
		}
		at = at[:min(len(at), len(dirs))]
		fmt.Fprintf(&b, "%s%s: %s\n", strings.Repeat("  ", len(dirs)), parts[len(parts)-1], k.Value)
	}
	return b.String()
}
