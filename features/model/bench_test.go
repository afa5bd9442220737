package model

import (
	"compress/gzip"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"testing"
)

// speedModel has 100 trees of 31 leaves over 40 features.
func speedModel(b *testing.B) (*Model, [][]float64) {
	f, err := os.Open("testdata/speed.txt.gz")
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = f.Close() }() // it was only read
	z, err := gzip.NewReader(f)
	if err != nil {
		b.Fatal(err)
	}
	text, err := io.ReadAll(z)
	if err != nil {
		b.Fatal(err)
	}
	m, err := Parse("speed", text)
	if err != nil {
		b.Fatal(err)
	}
	if m.Trees != 100 || len(m.forest.nodes) != 6100 {
		b.Fatalf("%d trees, %d nodes", m.Trees, len(m.forest.nodes))
	}
	r := rand.New(rand.NewPCG(1, 2))
	rows := make([][]float64, 512)
	for i := range rows {
		rows[i] = make([]float64, len(m.Features))
		for j := range rows[i] {
			if rows[i][j] = r.NormFloat64(); r.IntN(20) == 0 {
				rows[i][j] = math.NaN()
			}
		}
	}
	return m, rows
}

// BenchmarkScore is to be read beside BenchmarkLimit: the same number of steps, each a load that waits for the one before, in the same memory, in as many chains.
func BenchmarkScore(b *testing.B) {
	m, rows := speedModel(b)
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		if _, err := m.Score(rows[i%len(rows)]); err != nil {
			b.Fatal(err)
		}
		i++
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/steps(m, rows), "ns/step")
}

// steps is how many steps the four chains take for the rows on average: as many as the longest path of each four trees.
func steps(m *Model, rows [][]float64) (n float64) {
	for _, x := range rows {
		for i := 0; i < m.Trees; i += lanes {
			longest := 0
			for _, at := range m.forest.roots[i:min(i+lanes, m.Trees)] {
				length := 0
				for ; m.forest.nodes[at].how != 0; length++ {
					at = m.forest.next(&m.forest.nodes[at], x)
				}
				longest = max(longest, length)
			}
			n += float64(longest)
		}
	}
	return n / float64(len(rows))
}

func BenchmarkLimit(b *testing.B) {
	m, rows := speedModel(b)
	n := int(steps(m, rows))
	// One cycle through as much memory as the nodes take, in an order that no prefetcher guesses.
	next := make([]struct {
		at int32
		_  [12]byte
	}, len(m.forest.nodes))
	order := rand.New(rand.NewPCG(3, 4)).Perm(len(next))
	for i, at := range order {
		next[at].at = int32(order[(i+1)%len(order)])
	}
	chains := [lanes]int32{0, 1, 2, 3}
	b.ReportAllocs()
	for b.Loop() {
		p, q, r, s := chains[0], chains[1], chains[2], chains[3]
		for range n {
			p, q, r, s = next[p].at, next[q].at, next[r].at, next[s].at
		}
		chains = [lanes]int32{p, q, r, s}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/step")
}
