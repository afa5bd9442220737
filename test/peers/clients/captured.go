package main

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
)

// capturedIDs reads the ids of a request of PostHog's browser SDK: gzip that no header tells of, around a batch.
func capturedIDs(body []byte) ([]string, error) {
	var in io.Reader = bytes.NewReader(body)
	if bytes.HasPrefix(body, []byte{0x1F, 0x8B}) {
		z, err := gzip.NewReader(in)
		if err != nil {
			return nil, err
		}
		in = z
	}
	var request struct {
		Batch []struct {
			UUID string `json:"uuid"`
		} `json:"batch"`
	}
	if err := json.NewDecoder(in).Decode(&request); err != nil {
		return nil, err
	}
	var ids []string
	for _, e := range request.Batch {
		if e.UUID == "" {
			return nil, fmt.Errorf("an event without uuid in %d", len(request.Batch))
		}
		ids = append(ids, e.UUID)
	}
	return ids, nil
}
