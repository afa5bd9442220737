package hot

import (
	"context"
	"encoding/binary"
	"math"
	"slices"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/zeebo/xxh3"

	scoring "millrace/features/model"
)

// remoteModel asks a model server beside the stream, which never waits for it: the first time that a score is asked for it has none yet (NaN: the rule is not met), and the
// question goes to the server. An event is looked at twice, on arrival and once the watermark has passed it, the disorder bound later: by then the score is there. So rules
// that ask a server are rarely met on arrival, and are at the watermark; where the server gave no score in time the other rules decide alone.
type remoteModel struct {
	server *scoring.Server
	askers int
	ask    chan question
	asked  *prometheus.CounterVec

	mu       sync.Mutex
	now, old map[uint64]float64 // scores by the hash of their features; NaN: not there yet
}

type question struct {
	id       uint64
	features []float64
}

const (
	remoteQueue = 4096   // questions that wait
	remoteKnown = 50_000 // scores of a generation; there are two
)

func newRemoteModel(cfg scoring.ServerConfig, reg prometheus.Registerer) (*remoteModel, error) {
	server, err := scoring.NewServer(cfg, nil, reg)
	if err != nil {
		return nil, err
	}
	r := &remoteModel{
		server: server, askers: max(1, cfg.MaxConcurrent), ask: make(chan question, remoteQueue), now: map[uint64]float64{}, old: map[uint64]float64{},
		asked: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "millrace_model_scores_total", Help: "Scores that rules asked for of a model server: known was there, asked began a question, waiting had no answer yet, dropped found too many questions waiting. Without a score a rule is not met.",
		}, []string{"outcome"}),
	}
	reg.MustRegister(r.asked)
	return r, nil
}

// run asks until ctx ends.
func (r *remoteModel) run(ctx context.Context) {
	var wg sync.WaitGroup
	for range r.askers {
		wg.Go(func() {
			for {
				select {
				case <-ctx.Done():
					return
				case q := <-r.ask:
					answer := r.server.Score(ctx, q.features) // within its timeout, or the fallback
					r.mu.Lock()
					r.put(q.id, answer.Score)
					r.mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
}

// put notes a score. A generation that is full takes the place of the one before, so that the memory is bounded.
func (r *remoteModel) put(id uint64, score float64) {
	if len(r.now) >= remoteKnown {
		r.now, r.old = make(map[uint64]float64, remoteKnown), r.now
	}
	r.now[id] = score
}

// score is the score of features if it is known.
func (r *remoteModel) score(features []float64) float64 {
	buf := make([]byte, 0, 128)
	for _, f := range features {
		buf = binary.BigEndian.AppendUint64(buf, math.Float64bits(f))
	}
	id := xxh3.Hash(buf)
	r.mu.Lock()
	defer r.mu.Unlock()
	v, ok := r.now[id]
	if !ok {
		v, ok = r.old[id]
	}
	switch {
	case ok && !math.IsNaN(v):
		r.asked.WithLabelValues("known").Inc()
		return v
	case ok:
		r.asked.WithLabelValues("waiting").Inc()
		return math.NaN()
	}
	select {
	case r.ask <- question{id, slices.Clone(features)}:
		r.put(id, math.NaN())
		r.asked.WithLabelValues("asked").Inc()
	default:
		r.asked.WithLabelValues("dropped").Inc()
	}
	return math.NaN()
}
