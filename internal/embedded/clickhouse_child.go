package embedded

import (
	"errors"
	"flag"
	"fmt"
)

// ClickHouseChildOptions are the flags of the ClickHouse child.
type ClickHouseChildOptions struct {
	Library  string // libchdb.so
	Path     string // data folder
	Config   string // config.xml, absolute
	TCPPort  int
	HTTPPort int
}

func (o *ClickHouseChildOptions) flags(f *flag.FlagSet) {
	f.StringVar(&o.Library, "library", "", "engine to load")
	f.StringVar(&o.Path, "path", "", "data folder")
	f.StringVar(&o.Config, "config", "", "configuration file")
	f.IntVar(&o.TCPPort, "tcp-port", 0, "port of the native protocol")
	f.IntVar(&o.HTTPPort, "http-port", 0, "port of the HTTP interface")
}

func (o *ClickHouseChildOptions) validate() error {
	var errs []error
	for flag, missing := range map[string]bool{
		"library": o.Library == "", "path": o.Path == "", "config": o.Config == "", "tcp-port": o.TCPPort == 0, "http-port": o.HTTPPort == 0,
	} {
		if missing {
			errs = append(errs, fmt.Errorf("flag -%s is required", flag))
		}
	}
	return errors.Join(errs...)
}

// arguments makes the engine's own command line. Interactive mode is what keeps it
// alive when a connection fails; the query opens its servers and the terminal
// then waits for input that never comes.
func (o *ClickHouseChildOptions) arguments() []string {
	return []string{
		"clickhouse", "--interactive", "--disable_suggestion", "--history_file=/dev/null", "--highlight=0",
		"--path=" + o.Path,
		"--config-file=" + o.Config,
		"--log-level=warning",
		"--listen_host=127.0.0.1",
		fmt.Sprintf("--tcp_port=%d", o.TCPPort),
		fmt.Sprintf("--http_port=%d", o.HTTPPort),
		"--query=SYSTEM START LISTEN TCP; SYSTEM START LISTEN HTTP",
	}
}
