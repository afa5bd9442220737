package simulate

import (
	"fmt"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// batch is the body of one request and what the books need to know of its events.
type batch struct {
	body    []byte
	records []record
	ids     []byte   // of all events, one after the other
	ends    []uint32 // where in ids each ends
	format  Format
}

func (b *batch) reset() {
	b.body, b.records, b.ids, b.ends = b.body[:0], b.records[:0], b.ids[:0], b.ends[:0]
}

// begin makes the body ready to have an event appended to it.
func (b *batch) begin() {
	switch {
	case b.format == FormatNDJSON:
	case len(b.records) == 0:
		b.body = append(b.body, '[')
	default:
		b.body = append(b.body, ',')
	}
}

// end notes the event that was appended.
func (b *batch) end(r record, id []byte) {
	if b.format == FormatNDJSON {
		b.body = append(b.body, '\n')
	}
	b.records = append(b.records, r)
	b.ids = append(b.ids, id...)
	b.ends = append(b.ends, uint32(len(b.ids)))
}

// seal ends the body.
func (b *batch) seal() {
	if b.format == FormatArray {
		b.body = append(b.body, ']')
	}
}

// full says whether no further event goes in.
func (b *batch) full(t *Target) bool {
	return len(b.records) >= t.Batch || len(b.body) >= t.BatchBytes
}

// packer compresses bodies. Each sender has its own.
type packer struct {
	kind Compression
	gz   *gzip.Writer
	zst  *zstd.Encoder
	out  sink
}

// sink is a writer that keeps its memory.
type sink []byte

func (s *sink) Write(p []byte) (int, error) {
	*s = append(*s, p...)
	return len(p), nil
}

func newPacker(kind Compression) (*packer, error) {
	p := &packer{kind: kind}
	var err error
	switch kind {
	case Gzip:
		p.gz, err = gzip.NewWriterLevel(&p.out, gzip.BestSpeed)
	case Zstd:
		p.zst, err = zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1))
	}
	if err != nil {
		return nil, fmt.Errorf("preparing %s: %w", kind, err)
	}
	return p, nil
}

// pack gives the bytes to send, which are valid until the next call.
func (p *packer) pack(body []byte) ([]byte, error) {
	p.out = p.out[:0]
	switch p.kind {
	case Gzip:
		p.gz.Reset(&p.out)
		if _, err := p.gz.Write(body); err != nil {
			return nil, fmt.Errorf("compressing a batch: %w", err)
		}
		if err := p.gz.Close(); err != nil {
			return nil, fmt.Errorf("compressing a batch: %w", err)
		}
		return p.out, nil
	case Zstd:
		p.out = p.zst.EncodeAll(body, p.out)
		return p.out, nil
	}
	return body, nil
}
