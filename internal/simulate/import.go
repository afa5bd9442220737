package simulate

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"millrace/event"
	"millrace/event/wire"
	"millrace/internal/fault"
)

// Source is a kind of file.
type Source string

// The kinds of files.
const (
	SourceNDJSON  Source = "ndjson"
	SourceCSV     Source = "csv"
	SourceParquet Source = "parquet"
)

// source is the kind of a file: the one that was asked for, or what its name says, before a .gz or .zst.
func (o ImportOptions) source(file string) (Source, error) {
	switch o.Source {
	case SourceNDJSON, SourceCSV, SourceParquet:
		return o.Source, nil
	case "":
	default:
		return "", fmt.Errorf("%q is none of ndjson, csv and parquet", o.Source)
	}
	name := strings.TrimSuffix(strings.TrimSuffix(strings.ToLower(file), ".gz"), ".zst")
	switch filepath.Ext(name) {
	case ".ndjson", ".jsonl", ".json":
		return SourceNDJSON, nil
	case ".csv":
		return SourceCSV, nil
	case ".parquet":
		return SourceParquet, nil
	}
	return "", fmt.Errorf("%s: the name tells no kind (.ndjson, .jsonl, .json, .csv or .parquet, with .gz or .zst)", file)
}

// Reject is a row that is no event.
type Reject struct {
	File  string `json:"file"`
	Line  int64  `json:"line"` // Parquet: the row, from 1
	Error string `json:"error"`
}

// reportedRejects is how many rejects the summary names; all are in the rejects file.
const reportedRejects = 10

// maxRow bounds the bytes of one row of a file.
const maxRow = 4 << 20

// errTooLong is the error of a row beyond maxRow.
var errTooLong = fmt.Errorf("longer than %d MiB", maxRow>>20)

// importer turns rows into batches. It belongs to the goroutine that reads.
type importer struct {
	*run
	options ImportOptions
	file    string
	before  int64 // bytes of the files that are done

	batch   *batch
	decoder *wire.Decoder
	event   event.Event
	copied  []byte
	names   map[string]uint32
	coins   map[string]uint16

	rejects     []Reject
	rejectsFile *bufio.Writer
	rejectsErr  error
}

// Import sends the events of files, on the replay lane. Rows that are no events are counted and told, and do not stop the others; a file that cannot be read
// to its end is an error, after the other files have been sent.
//
// Every row is checked by the gateway's own decoder before it is sent, so what is sent is accepted. Memory is bounded but for 8 bytes an id.
func Import(ctx context.Context, o ImportOptions) (Summary, error) {
	if err := o.Validate(); err != nil {
		return Summary{}, err
	}
	total := int64(0)
	for _, f := range o.Files { // before anything is sent
		info, err := os.Stat(f)
		if err != nil {
			return Summary{}, fault.Newf("MR-SIM-005", "looking at a file to import: %w", err)
		}
		if info.IsDir() {
			return Summary{}, fault.Newf("MR-SIM-005", "%s is a folder", f)
		}
		total += info.Size()
	}
	l, err := openLedger(o.Ledger)
	if err != nil {
		return Summary{}, err
	}
	seen := map[uint64]struct{}{}
	first := func(_, hash uint64) bool {
		n := len(seen)
		seen[hash] = struct{}{}
		return len(seen) > n
	}
	im := &importer{run: newRun(o.Target, newBook(nil, nil, nil, first, l)), options: o, decoder: wire.NewDecoder(), names: map[string]uint32{}, coins: map[string]uint16{}}
	im.header.Set("X-Millrace-Lane", "replay")
	im.decoder.Reset(&wire.Source{Redactor: wire.NewRedactor(nil)})
	im.total.Store(total)

	var rejects *os.File
	if o.Rejects != "" {
		if rejects, err = os.Create(o.Rejects); err != nil {
			return Summary{}, errors.Join(fault.Newf("MR-SIM-004", "creating the rejects file: %w", err), l.close())
		}
		im.rejectsFile = bufio.NewWriter(rejects)
	}
	var broken []error // files
	s, err := im.do(ctx, func(ctx context.Context) error {
		for _, f := range o.Files {
			if err := im.read(ctx, f); err != nil && ctx.Err() == nil {
				broken = append(broken, fault.Newf("MR-SIM-005", "importing %s: %w", f, err))
			}
		}
		if im.batch != nil {
			im.put(ctx, im.batch)
		}
		return nil
	})
	s.Rejects = im.rejects
	if rejects != nil {
		if im.rejectsErr == nil {
			im.rejectsErr = im.rejectsFile.Flush()
		}
		if err := rejects.Close(); im.rejectsErr == nil {
			im.rejectsErr = err
		}
		if im.rejectsErr != nil {
			err = errors.Join(err, fault.Newf("MR-SIM-004", "writing the rejects file: %w", im.rejectsErr))
		}
	}
	return s, errors.Join(append(broken, err)...)
}

// read imports one file.
func (im *importer) read(ctx context.Context, path string) error {
	kind, err := im.options.source(path)
	if err != nil {
		return err
	}
	im.file = path
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // it was only read
	info, err := f.Stat()
	if err != nil {
		return err
	}
	defer func() {
		im.before += info.Size()
		im.done.Store(im.before)
	}()
	if kind == SourceParquet {
		return im.readParquet(ctx, f, info.Size())
	}
	r, closeReader, err := unpack(path, &counter{r: f, im: im})
	if err != nil {
		return err
	}
	defer closeReader()
	if kind == SourceCSV {
		return im.readCSV(ctx, r)
	}
	return im.readNDJSON(ctx, r)
}

// counter counts what is read of a file.
type counter struct {
	r  io.Reader
	n  int64
	im *importer
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	c.im.done.Store(c.im.before + c.n)
	return n, err
}

// row sends the text of one event, or rejects it. The text must be one line. It says whether the import goes on.
func (im *importer) row(ctx context.Context, line int64, text []byte) bool {
	im.copied = append(im.copied[:0], text...) // the decoder changes what it reads
	fail := im.decoder.Decode(im.copied, &im.event)
	if fail == nil && !json.Valid(text) { // the decoder forgives some of what would break the array the text is put into
		fail = &wire.Failure{Reason: event.ReasonMalformed, Message: "not valid JSON"}
	}
	if fail == nil {
		fail = im.decoder.Complete(&wire.Request{ReceivedAt: time.Now().UnixMicro(), Replay: true})
	}
	if fail != nil {
		im.reject(line, text, fail)
		return ctx.Err() == nil
	}
	if im.batch != nil && (im.batch.full(&im.target) || len(im.batch.body)+len(text) > im.target.BatchBytes && len(im.batch.records) > 0) {
		b := im.batch
		im.batch = nil
		if !im.put(ctx, b) {
			return false
		}
	}
	if im.batch == nil {
		if im.batch = im.take(ctx); im.batch == nil {
			return false
		}
	}
	e := &im.event
	name, ok := im.names[e.Name]
	if !ok {
		owned := strings.Clone(e.Name)
		name = im.book.newName(owned)
		im.names[owned] = name
	}
	r := record{name: name}
	if e.Name == event.NamePurchase && e.Value != nil {
		if r.currency, ok = im.coins[e.Currency]; !ok {
			owned := strings.Clone(e.Currency)
			r.currency = im.book.newCoin(owned)
			im.coins[owned] = r.currency
		}
		r.value = *e.Value
	} else if len(im.coins) == 0 { // a purchase without a value has some currency's number too
		im.coins[""] = im.book.newCoin("")
	}
	im.batch.begin()
	im.batch.body = append(im.batch.body, text...)
	im.batch.end(r, []byte(e.ID))
	return true
}

// reject notes a row that is no event.
func (im *importer) reject(line int64, row []byte, why error) {
	im.rejected.Add(1)
	r := Reject{File: im.file, Line: line, Error: why.Error()}
	if len(im.rejects) < reportedRejects {
		im.rejects = append(im.rejects, r)
	}
	if im.rejectsFile == nil || im.rejectsErr != nil {
		return
	}
	text, err := json.Marshal(struct {
		Reject
		Row string `json:"row"`
	}{r, string(row)})
	if err == nil {
		_, err = im.rejectsFile.Write(append(text, '\n'))
	}
	im.rejectsErr = err
}
