package embedded

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"millrace/internal/embedded/install"
	"millrace/internal/fault"
)

// The ids of what can be wrong with a platform; package supervisor and install have more.
const (
	platformID   fault.ID = "MR-EMB-006"
	brokerKindID fault.ID = "MR-EMB-011"
	noPythonID   fault.ID = "MR-EMB-013"
)

// The names of the servers that a platform starts.
const (
	KafkaChild      = "kafka"
	ClickHouseChild = "clickhouse"
	RedisChild      = "redis"
	TemporalChild   = "temporal"
	BigQueryChild   = "bigquery" // only where Options.BigQuery asks for it
)

// The kinds of broker.
const (
	BrokerAuto   = "auto"   // Apache where Java can be had, else kfake
	BrokerApache = "apache" // Apache Kafka on the JVM
	BrokerKfake  = "kfake"  // a stand-in in a process of its own
)

// Options of a Platform.
type Options struct {
	DataDir   string // all state; required
	CacheDir  string // installations; default $MILLRACE_CACHE, else .cache in SourceDir, else the user's cache folder
	SourceDir string // the project's checkout, from which the Temporal child is built; default: found above the working folder or the binary
	Broker    string // BrokerAuto, BrokerApache or BrokerKfake; default auto
	Self      string // binary that becomes a child through MaybeChild; default this one
	Log       *slog.Logger
	Progress  install.Progress // of installations; may be nil

	BigQuery bool // start a BigQuery emulator too

	// An address replaces the child.
	Kafka, ClickHouse, Redis, Temporal string
	// Only restricts which children are started; empty means all.
	Only []string
}

func (o *Options) setDefaults() error {
	if o.Broker == "" {
		o.Broker = BrokerAuto
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Self == "" {
		self, err := os.Executable()
		if err != nil {
			return fmt.Errorf("finding this program's own file: %w", err)
		}
		o.Self = self
	}
	if o.SourceDir == "" {
		o.SourceDir = findSource(o.Self)
	}
	if o.CacheDir == "" {
		o.CacheDir = defaultCache(o.SourceDir)
	}
	var err error
	o.DataDir, err = filepath.Abs(o.DataDir)
	return err
}

// Validate reports everything that is wrong.
func (o *Options) Validate() error {
	var errs []error
	if o.DataDir == "" {
		errs = append(errs, errors.New("DataDir is empty"))
	}
	if kinds := []string{"", BrokerAuto, BrokerApache, BrokerKfake}; !slices.Contains(kinds, o.Broker) {
		errs = append(errs, fmt.Errorf("Broker is %q, must be one of auto, apache, kfake", o.Broker))
	}
	names := []string{KafkaChild, ClickHouseChild, RedisChild, TemporalChild, BigQueryChild}
	for _, name := range o.Only {
		if !slices.Contains(names, name) {
			errs = append(errs, fmt.Errorf("Only names %q, must be of %s", name, strings.Join(names, ", ")))
		}
	}
	if needed := o.children(); len(needed) > 0 && (runtime.GOOS != "linux" || runtime.GOARCH != "amd64") {
		errs = append(errs, fault.Newf(platformID, "on %s/%s nothing is started; configure addresses for %s", runtime.GOOS, runtime.GOARCH, strings.Join(needed, ", ")))
	}
	return errors.Join(errs...)
}

// children are the servers to start, in order.
func (o *Options) children() []string {
	var names []string
	for _, c := range []struct{ name, address string }{
		{KafkaChild, o.Kafka}, {ClickHouseChild, o.ClickHouse}, {RedisChild, o.Redis}, {TemporalChild, o.Temporal},
	} {
		if c.address == "" && (len(o.Only) == 0 || slices.Contains(o.Only, c.name)) {
			names = append(names, c.name)
		}
	}
	if o.BigQuery && len(o.Only) == 0 || slices.Contains(o.Only, BigQueryChild) {
		names = append(names, BigQueryChild)
	}
	return names
}

// findSource looks for the checkout above the working folder, then above the binary.
func findSource(self string) string {
	starts := []string{filepath.Dir(self)}
	if wd, err := os.Getwd(); err == nil {
		starts = append([]string{wd}, starts...)
	}
	for _, dir := range starts {
		for {
			if _, err := os.Stat(filepath.Join(dir, install.TemporalSource, "go.mod")); err == nil {
				return dir
			}
			parent := filepath.Dir(dir)
			if parent == dir {
				break
			}
			dir = parent
		}
	}
	return ""
}

func defaultCache(source string) string {
	if dir := os.Getenv("MILLRACE_CACHE"); dir != "" {
		return dir
	}
	if source != "" {
		return filepath.Join(source, ".cache")
	}
	if dir, err := os.UserCacheDir(); err == nil {
		return filepath.Join(dir, "millrace")
	}
	return filepath.Join(os.TempDir(), "millrace-cache")
}
