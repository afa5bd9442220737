package gateway

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/zeebo/xxh3"

	"millrace/event"
)

// body is a request's body as far as it was read.
type body struct {
	text   []byte // decoded, at most MaxBodyBytes
	over   bool   // there was more
	broken error  // the compression is damaged; text is what came before
	size   int64  // full length: decoded, or as sent if over
	digest string // xxh128 of what was sent, hex, if over
}

// errBusy says that there is no memory for the request now.
var errBusy = errors.New("too many requests in flight")

// discardBytes is how much of a body that is too large is read and thrown away, so that its client gets to see the answer.
const discardBytes = 128 << 20

// requestBytes is what any request takes of the budget, whatever it holds.
const requestBytes = 4 << 10

// readBody reads and decompresses a request's body. The compression is told by the first bytes, because headers lie (proxies decompress, SDKs forget). Memory
// is taken from the budget as the text grows. An error means that the client went away or was too slow.
func (w *worker) readBody(r *http.Request, b *budget, spent *int64) (body, error) {
	if !b.take(requestBytes, spent) {
		return body{}, errBusy
	}
	sum := xxh3.New()
	sent := &counted{r: r.Body}
	w.in.Reset(sent)
	var from io.Reader = &w.in
	head, err := w.in.Peek(4)
	if err != nil && !errors.Is(err, io.EOF) {
		return body{}, fmt.Errorf("reading the request: %w", err)
	}
	packed := false
	switch {
	case bytes.HasPrefix(head, []byte{0x1F, 0x8B}):
		packed = true
		if err := w.gzip.Reset(&w.in); err != nil {
			return w.damaged(sent, err)
		}
		from = &w.gzip
	case bytes.Equal(head, []byte{0x28, 0xB5, 0x2F, 0xFD}):
		packed = true
		if w.zstd == nil {
			if w.zstd, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(8<<20), zstd.WithDecoderMaxMemory(64<<20)); err != nil {
				return body{}, fmt.Errorf("making a zstd decoder: %w", err)
			}
		}
		if err := w.zstd.Reset(&w.in); err != nil {
			return w.damaged(sent, err)
		}
		from = w.zstd
	}
	w.text = w.text[:0]
	if n := r.ContentLength; !packed && n > 0 && n <= MaxBodyBytes && int64(cap(w.text)) <= n {
		if !b.take(n, spent) {
			return body{}, errBusy
		}
		w.text = make([]byte, 0, n+1)
	}
	for {
		if len(w.text) == cap(w.text) {
			grow := min(max(cap(w.text), 64<<10), MaxBodyBytes+1-len(w.text))
			if !b.take(int64(grow), spent) {
				return body{}, errBusy
			}
			text := make([]byte, len(w.text), cap(w.text)+grow)
			copy(text, w.text)
			w.text = text
		}
		n, err := from.Read(w.text[len(w.text):cap(w.text)])
		w.text = w.text[:len(w.text)+n]
		if len(w.text) > MaxBodyBytes {
			break
		}
		if errors.Is(err, io.EOF) && (sent.err == nil || errors.Is(sent.err, io.EOF)) {
			return body{text: w.text, size: int64(len(w.text))}, nil
		}
		if err != nil {
			return w.damaged(sent, err)
		}
	}
	// Too large: what follows is thrown away as it was sent, undecoded, so that a bomb costs nothing more.
	_, _ = sum.Write(w.text[:event.MaxFailedPayload]) // a hash does not fail
	sent.left = discardBytes
	if _, err := io.Copy(sum, &w.in); err != nil && !errors.Is(err, errDiscarded) {
		return body{}, fmt.Errorf("reading the request: %w", err)
	}
	size := sent.n
	if !packed && r.ContentLength > size {
		size = r.ContentLength
	}
	digest := sum.Sum128().Bytes()
	return body{text: w.text[:event.MaxFailedPayload], over: true, size: size, digest: hex.EncodeToString(digest[:])}, nil
}

// damaged tells a client that went away from damaged compression.
func (w *worker) damaged(sent *counted, err error) (body, error) {
	if sent.err != nil && !errors.Is(sent.err, io.EOF) {
		return body{}, fmt.Errorf("reading the request: %w", sent.err)
	}
	return body{text: w.text, broken: err, size: sent.n}, nil
}

// counted counts what is read from the connection and remembers how it ended.
type counted struct {
	r    io.Reader
	n    int64
	left int64 // if above 0: how much more may be read
	err  error
}

var errDiscarded = errors.New("enough discarded")

func (c *counted) Read(p []byte) (int, error) {
	if c.left < 0 {
		return 0, errDiscarded
	}
	n, err := c.r.Read(p)
	c.n += int64(n)
	if c.left > 0 {
		if c.left -= int64(n); c.left <= 0 {
			c.left = -1
		}
	}
	c.err = err
	return n, err
}

// The readers are kept by a worker.
type readers struct {
	in   bufio.Reader
	gzip gzip.Reader
	zstd *zstd.Decoder
	text []byte
}
