package hot

import (
	"context"
	"encoding/binary"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sr"

	"millrace/event"
	"millrace/event/registry"
	"millrace/event/schema"
)

// TestSchemasOfOthers: a producer that is a version ahead of this worker loses nothing, and a registry that is away is no reason to call an event malformed.
func TestSchemasOfOthers(t *testing.T) {
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	defer cluster.Close()
	regs, err := registry.New(registry.Config{TopicConfigs: map[string]string{"cleanup.policy": "delete", "retention.ms": "-1"}}, []kgo.Opt{kgo.SeedBrokers(cluster.ListenAddrs()...)}, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- regs.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	for deadline := time.Now().Add(20 * time.Second); !regs.Ready(); {
		if time.Now().After(deadline) {
			t.Fatal("the registry is not ready after 20 s")
		}
		<-time.After(10 * time.Millisecond)
	}
	var away atomic.Bool
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if away.Load() {
			http.Error(w, `{"error_code":50003,"message":"away"}`, http.StatusServiceUnavailable)
			return
		}
		regs.ServeHTTP(w, q)
	}))
	defer server.Close()
	httpClient := &http.Client{Transport: &http.Transport{}}
	defer httpClient.CloseIdleConnections()
	client, err := sr.NewClient(sr.URLs(server.URL), sr.HTTPClient(httpClient))
	if err != nil {
		t.Fatal(err)
	}
	codecs, err := schema.NewCodecs()
	if err != nil {
		t.Fatal(err)
	}
	if err := codecs.Register(t.Context(), client); err != nil {
		t.Fatal(err)
	}
	versions, err := schema.Versions("raw.page")
	if err != nil {
		t.Fatal(err)
	}
	newer := strings.TrimSuffix(strings.TrimSpace(versions[len(versions)-1]), "]}") + `,{"name":"loyalty_tier","type":["null","string"],"default":null}]}`
	id, err := client.RegisterSchema(t.Context(), "raw.page-value", sr.Schema{Schema: newer}, -1, -1)
	if err != nil {
		t.Fatal(err)
	}

	r := newRig(t, option{with: codecs})
	ahead := func(schemaID int) {
		e := r.make(event.Event{VisitorID: "v", Properties: `{"a":1}`})
		body := codecs.AppendRaw(nil, event.Page, &e)[5:]
		value := append(binary.BigEndian.AppendUint32([]byte{0}, uint32(schemaID)), body...)
		r.h.Produce(int(event.Page), &kgo.Record{Key: e.AppendKey(nil), Value: append(value, 2, 8, 'g', 'o', 'l', 'd')})
	}
	ahead(id)
	away.Store(true)
	if err := r.h.Feed(); err == nil {
		t.Fatal("the record was handled without its schema")
	}
	away.Store(false)
	r.ok(r.h.Crash())
	ahead(id + 1000)
	r.settle()
	rows := r.events(event.Page)
	if len(rows) != 1 || rows[0].Properties != `{"a":1,"loyalty_tier":"gold"}` || rows[0].VisitorID != "v" {
		t.Errorf("%+v: the field that this worker does not know is to be among the properties", rows)
	}
	failed := decodeAll[event.Failed](r, event.TopicEventsFailed)
	if len(failed) != 1 || failed[0].RawOffset != 1 || failed[0].Reason != event.ReasonMalformed {
		t.Errorf("%+v: only the record of an unknown schema is malformed", failed)
	}
}
