package workers

import (
	"log/slog"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"millrace/event/schema"
	"millrace/streaming/sink"
)

// `millrace run ROLE ROLE` puts several roles into one process with one registry of metrics.
func TestTheSinksShareARegistryOfMetrics(t *testing.T) {
	codecs, err := schema.NewCodecs()
	if err != nil {
		t.Fatal(err)
	}
	reg, log := prometheus.NewRegistry(), slog.New(slog.DiscardHandler)
	if _, err := sink.NewRedis(sink.DefaultRedisConfig(), nil, codecs.AssignLocal(), nil, reg, log); err != nil {
		t.Error(err)
	}
	if _, err := sink.NewIceberg(sink.DefaultIcebergConfig(), nil, codecs, nil, reg, log); err != nil {
		t.Error(err)
	}
	if _, err := sink.NewClickHouse(sink.DefaultClickHouseConfig(), nil, codecs, nil, reg, log); err != nil {
		t.Error(err)
	}
	if _, err := reg.Gather(); err != nil {
		t.Error(err)
	}
}
