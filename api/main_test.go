package api

import (
	"os"
	"testing"

	"millrace/internal/embedded"
	"millrace/internal/embedded/embeddedtest"
)

var servers *embeddedtest.Servers

func TestMain(m *testing.M) {
	os.Exit(embeddedtest.Main(m, &servers, "kfake", embedded.ClickHouseChild, embedded.RedisChild))
}
