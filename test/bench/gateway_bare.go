package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-faster/jx"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"

	"millrace/event"
	eventregistry "millrace/event/registry"
	"millrace/test/bench/child"
)

// bare is the peer of the gateway: what any HTTP-to-Kafka producer does at least. It splits the array with jx, finds the name and the visitor by their spelling,
// and produces the element as it is. The topic, its linger and compression, acks and the key's partition are as in the gateway, so that both make batches alike;
// it does not decode, check, complete or encode an event, and has no keys, limits, spool or failed events.
type bare struct{ topics []bareTopic } // by category

type bareTopic struct {
	name   string
	client *kgo.Client
}

func newBare(brokers string) (*bare, error) {
	type nature struct {
		linger time.Duration
		codec  event.Codec
	}
	clients := map[nature]*kgo.Client{}
	b := &bare{}
	for _, c := range event.Categories() {
		t, _ := event.TopicNamed(c.RawTopic()) // every category's is in the table
		n := nature{t.Linger, t.Codec}
		if clients[n] == nil {
			codec := kgo.SnappyCompression()
			if n.codec == event.Zstd {
				codec = kgo.ZstdCompression()
			}
			cl, err := kgo.NewClient(kgo.SeedBrokers(brokers), kgo.ProducerLinger(n.linger), kgo.ProducerBatchCompression(codec), kgo.RequiredAcks(kgo.AllISRAcks()), kgo.MaxBufferedRecords(200_000))
			if err != nil {
				return nil, fmt.Errorf("making a producer: %w", err)
			}
			clients[n] = cl
		}
		b.topics = append(b.topics, bareTopic{t.Name, clients[n]})
	}
	return b, nil
}

// ServeHTTP implements http.Handler.
func (b *bare) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		w.WriteHeader(http.StatusOK)
		return
	}
	body := make([]byte, r.ContentLength)
	if _, err := io.ReadFull(r.Body, body); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	var waiting sync.WaitGroup
	var refused atomic.Pointer[error]
	promise := func(_ *kgo.Record, err error) {
		if err != nil {
			refused.Store(&err)
		}
		waiting.Done()
	}
	err := jx.DecodeBytes(body).Arr(func(d *jx.Decoder) error {
		text, err := d.Raw()
		if err != nil {
			return err
		}
		t := b.topics[event.CategoryOf(string(member(text, `"name":"`)))]
		waiting.Add(1)
		t.client.Produce(r.Context(), &kgo.Record{Topic: t.name, Key: member(text, `"visitor_id":"`), Value: text}, promise)
		return nil
	})
	waiting.Wait()
	if e := refused.Load(); e != nil {
		err = errors.Join(err, *e)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write([]byte(`{"success":true}`)) // the client is gone otherwise
}

// member finds the text behind the first place where key is written.
func member(text []byte, key string) []byte {
	i := bytes.Index(text, []byte(key))
	if i < 0 {
		return nil
	}
	text = text[i+len(key):]
	return text[:max(0, bytes.IndexByte(text, '"'))]
}

// serveBare runs the peer until ctx ends; its address is the first line of out.
func serveBare(ctx context.Context, j job, out io.Writer) error {
	b, err := newBare(j.Brokers)
	if err != nil {
		return err
	}
	l, err := listen(ctx)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintln(out, l.Addr()); err != nil {
		return fmt.Errorf("saying the address: %w", err)
	}
	stop, err := child.StartProfile(j.Profile)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: b, ReadHeaderTimeout: 5 * time.Second}
	end := context.AfterFunc(ctx, func() { _ = server.Close() }) // nobody waits for answers any more
	defer end()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("bare gateway: %w", err)
	}
	return stop()
}

// startRegistry serves a schema registry, which the gateway asks at its start.
func startRegistry(brokers string) (url string, stop func(), err error) {
	cfg := eventregistry.Config{TopicConfigs: map[string]string{"cleanup.policy": "delete", "retention.ms": "-1"}}.Defaults()
	r, err := eventregistry.New(cfg, []kgo.Opt{kgo.SeedBrokers(brokers)}, prometheus.NewRegistry(), child.Quiet())
	if err != nil {
		return "", nil, fmt.Errorf("starting a registry: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	l, err := listen(ctx)
	if err != nil {
		cancel()
		return "", nil, err
	}
	ended := make(chan struct{})
	go func() { defer close(ended); _ = r.Serve(ctx, l) }() // who asks it sees what is wrong
	return "http://" + l.Addr().String(), func() { cancel(); <-ended }, nil
}
