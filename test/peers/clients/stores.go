package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os/exec"
	"path/filepath"
	"strings"
)

// stores reads what the platform has, by source: rows of all event tables, and the number of failed events with their reasons.
type stores struct {
	endpoints endpoints
	python    string
	scripts   string
	data      string
}

// contents is what one store has.
type contents struct {
	rows   map[string][]row
	failed map[string][]string
}

// run is the source's own name without what CloudEvents append.
func run(source string) string {
	name, _, _ := strings.Cut(source, "/")
	return name
}

func (c contents) add(line []byte) error {
	var r struct {
		row
		Failure string `json:"failure"`
	}
	if err := json.Unmarshal(line, &r); err != nil {
		return fmt.Errorf("reading a row %q: %w", line, err)
	}
	if r.Failure != "" {
		c.failed[run(r.Source)] = append(c.failed[run(r.Source)], r.Failure)
		return nil
	}
	c.rows[run(r.Source)] = append(c.rows[run(r.Source)], r.row)
	return nil
}

func parseLines(out []byte) (contents, error) {
	c := contents{rows: map[string][]row{}, failed: map[string][]string{}}
	for line := range bytes.Lines(out) {
		if line = bytes.TrimSpace(line); len(line) == 0 {
			continue
		}
		if err := c.add(line); err != nil {
			return c, err
		}
	}
	return c, nil
}

const clickhouseRows = `SELECT source, event_id, name, category, toUnixTimestamp64Micro(occurred_at) AS at, toString(value) AS value, currency, order_id, product_ids, properties, visitor_id, user_id
 FROM events FORMAT JSONEachRow`

const clickhouseFailed = `SELECT source, concat(reason, ' ', error_path, ': ', error, ' ', payload) AS failure FROM failed_events FORMAT JSONEachRow`

// clickhouse reads ClickHouse through its HTTP interface.
func (s stores) clickhouse(ctx context.Context) (contents, error) {
	var all []byte
	for _, q := range []string{clickhouseRows, clickhouseFailed} {
		out, err := s.ask(ctx, q)
		if err != nil {
			return contents{}, err
		}
		all = append(all, out...)
	}
	return parseLines(all)
}

// count gives the rows and distinct ids of one source.
func (s stores) count(ctx context.Context, source string) (rows int, err error) {
	out, err := s.ask(ctx, "SELECT count() + (SELECT count() FROM failed_events WHERE splitByChar('/', source)[1] = '"+source+"') FROM events WHERE splitByChar('/', source)[1] = '"+source+"' FORMAT TSV")
	if err != nil {
		return 0, err
	}
	_, err = fmt.Sscan(string(out), &rows)
	return rows, err
}

func (s stores) ask(ctx context.Context, query string) ([]byte, error) {
	at := s.endpoints.ClickHouse
	settings := url.Values{"database": {at.Database}, "output_format_json_quote_64bit_integers": {"0"}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, at.HTTP+"/?"+settings.Encode(), strings.NewReader(query))
	if err != nil {
		return nil, err
	}
	req.SetBasicAuth(at.User, at.Password)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, fmt.Errorf("asking ClickHouse: %w", err)
	}
	defer func() { _ = resp.Body.Close() }() // read to its end
	out, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = errors.New(string(out))
	}
	if err != nil {
		return nil, fmt.Errorf("asking ClickHouse: %w", err)
	}
	return out, nil
}

// iceberg reads the lakehouse with PyIceberg.
func (s stores) iceberg(ctx context.Context) (contents, error) {
	cmd := exec.CommandContext(ctx, s.python, filepath.Join(s.scripts, "iceberg_rows.py"), filepath.Join(s.data, "endpoints.json"))
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return contents{}, fmt.Errorf("reading Iceberg with PyIceberg: %w: %s", err, errs.String())
	}
	return parseLines(out.Bytes())
}
