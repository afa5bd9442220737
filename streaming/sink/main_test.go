package sink

import (
	"fmt"
	"os"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"millrace/internal/embedded"
	"millrace/internal/embedded/embeddedtest"
)

// servers starts the servers that tests of this package share, once one asks.
var servers struct {
	once sync.Once
	s    *embeddedtest.Servers
	err  error
}

func sharedServers(tb testing.TB) *embeddedtest.Servers {
	tb.Helper()
	servers.once.Do(func() {
		servers.s, servers.err = embeddedtest.Start(tb.Context(), "", "kfake", embedded.ClickHouseChild)
	})
	if servers.err != nil {
		tb.Fatal(servers.err)
	}
	return servers.s
}

func TestMain(m *testing.M) {
	embedded.MaybeChild()
	if spec := os.Getenv(clickhouseProcessEnv); spec != "" {
		os.Exit(clickhouseProcess(spec))
	}
	code := m.Run()
	if servers.s != nil {
		servers.s.Stop()
	}
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}
