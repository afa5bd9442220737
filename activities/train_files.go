package activities

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/klauspost/compress/gzip"

	"millrace/features/recommend"
	"millrace/live"
)

var errModelLost = errors.New("the folder of the training has lost a file: is batch.dir of all workers the same folder? A run with another \"run\" trains again")

// trainFolder holds one training: plan.json, result.json and the model, one item a line.
type trainFolder struct{ planFolder }

func trainFolderName(model string) string { return "train-" + model }

func openTrain(dir, model, key string) (trainFolder, error) {
	f, err := openPlan(dir, trainFolderName(model), key)
	return trainFolder{f}, err
}

func (f trainFolder) planned() (trainPlan, error) {
	var p trainPlan
	there, err := f.read("plan.json", &p)
	if err == nil && !there {
		err = fmt.Errorf("plan.json: %w", errModelLost)
	}
	return p, err
}

func (f trainFolder) trained() (trainPlan, TrainOutput, error) {
	var r TrainOutput
	p, err := f.planned()
	if err != nil {
		return p, r, err
	}
	there, err := f.read("result.json", &r)
	if err == nil && !there {
		err = fmt.Errorf("result.json: %w", errModelLost)
	}
	return p, r, err
}

const modelFile = "model.ndjson.gz"

// modelLine is one line: the popular items come first, under the item "".
type modelLine struct {
	Item       string                `json:"item"`
	Neighbours []recommend.Neighbour `json:"neighbours"`
}

// writeModel puts the model in place in one step.
func (f trainFolder) writeModel(m *recommend.Model) error {
	tmp, err := os.CreateTemp(f.path, modelFile+".*.new")
	if err != nil {
		return fmt.Errorf("writing a model: %w", err)
	}
	buf := bufio.NewWriterSize(tmp, 1<<20)
	zip := gzip.NewWriter(buf)
	enc := json.NewEncoder(zip)
	err = enc.Encode(modelLine{Neighbours: m.Popular})
	if err == nil {
		err = m.Each(func(item string, ns []recommend.Neighbour) error { return enc.Encode(modelLine{item, ns}) })
	}
	err = errors.Join(err, zip.Close(), buf.Flush())
	if err == nil {
		err = tmp.Sync()
	}
	err = errors.Join(err, tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), filepath.Join(f.path, modelFile))
	}
	if err != nil {
		return fmt.Errorf("writing a model: %w", errors.Join(err, os.Remove(tmp.Name())))
	}
	return nil
}

// modelLists are the lines of a model after the first.
type modelLists struct {
	file *os.File
	zip  *gzip.Reader
	dec  *json.Decoder
}

func (f trainFolder) openModel() ([]live.Scored, *modelLists, error) {
	file, err := os.Open(filepath.Join(f.path, modelFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, fmt.Errorf("%s: %w", modelFile, errModelLost)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("reading a model: %w", err)
	}
	zip, err := gzip.NewReader(bufio.NewReaderSize(file, 1<<20))
	if err != nil {
		return nil, nil, fmt.Errorf("reading a model: %w", errors.Join(err, file.Close()))
	}
	l := &modelLists{file, zip, json.NewDecoder(zip)}
	var first modelLine
	if err := l.dec.Decode(&first); err != nil {
		l.close()
		return nil, nil, fmt.Errorf("reading a model: %w", err)
	}
	return scored(first.Neighbours), l, nil
}

func (l *modelLists) close() {
	_ = l.zip.Close() // only read
	_ = l.file.Close()
}

func (l *modelLists) each(put func(item string, neighbours []live.Scored) error) error {
	for {
		var line modelLine
		err := l.dec.Decode(&line)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading a model: %w", err)
		}
		if err := put(line.Item, scored(line.Neighbours)); err != nil {
			return err
		}
	}
}

func scored(ns []recommend.Neighbour) []live.Scored {
	out := make([]live.Scored, len(ns))
	for i, n := range ns {
		out[i] = live.Scored(n)
	}
	return out
}

func (t *Train) drop(ctx context.Context, in TrainInput) error {
	f, err := openTrain(t.dir, in.Input.Model, in.Key)
	if err != nil {
		return err
	}
	var p trainPlan
	if _, err := f.read("plan.json", &p); err != nil {
		return err
	}
	for _, s := range p.Snapshots {
		release, err := t.lake.Lease(ctx, s.Table, trainLease, in.Key, s.Snapshot, trainLeaseTime)
		if err == nil {
			err = release(ctx)
		}
		if err != nil { // it ends by itself
			t.log.WarnContext(ctx, "training: a lease is left to its time", "table", s.Table, "error", err)
		}
	}
	return f.drop()
}
