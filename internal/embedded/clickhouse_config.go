package embedded

import (
	"bytes"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"text/template"

	"github.com/google/uuid"
)

var (
	//go:embed clickhouse/config.xml
	clickHouseConfig string
	//go:embed clickhouse/users.xml
	clickHouseUsers string
)

// The server's memory is what one machine of 8 GiB can spare beside the other children.
const (
	clickHouseServerMemory = 4_000_000_000
	clickHouseQueryMemory  = 3_000_000_000
	clickHouseReaderMemory = 1_000_000_000
)

// clickHouseDir is the layout of one server's folder.
type clickHouseDir string

func (d clickHouseDir) data() string   { return filepath.Join(string(d), "data") }
func (d clickHouseDir) config() string { return filepath.Join(string(d), "cfg", "config.xml") }
func (d clickHouseDir) users() string  { return filepath.Join(string(d), "cfg", "users.xml") }

// write makes the folder ready for a start: configuration anew each time, the
// system database once.
func (d clickHouseDir) write(log string, s Secrets) error {
	for _, dir := range []string{d.data(), filepath.Dir(d.config())} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("creating ClickHouse's folder: %w", err)
		}
	}
	values := map[string]any{
		"Log": log, "Users": d.users(),
		"ServerMemory": clickHouseServerMemory, "QueryMemory": clickHouseQueryMemory,
		"ReaderMemory": clickHouseReaderMemory, "ReaderSpill": clickHouseReaderMemory / 2,
		"AdminHash": sha256Hex(s.ClickHousePassword), "ReaderHash": sha256Hex(s.ClickHouseReaderPassword),
	}
	for path, text := range map[string]string{d.config(): clickHouseConfig, d.users(): clickHouseUsers} {
		out, err := fillXML(text, values)
		if err != nil {
			return err
		}
		if err := os.WriteFile(path, out, 0o600); err != nil {
			return fmt.Errorf("writing ClickHouse's configuration: %w", err)
		}
	}
	return d.seedSystem()
}

// fillXML fills a template whose values may hold anything a path may.
func fillXML(text string, values map[string]any) ([]byte, error) {
	escaped := make(map[string]string, len(values))
	for name, value := range values {
		var b strings.Builder
		if err := xml.EscapeText(&b, []byte(fmt.Sprint(value))); err != nil {
			return nil, fmt.Errorf("escaping %s: %w", name, err)
		}
		escaped[name] = b.String()
	}
	t, err := template.New("").Option("missingkey=error").Parse(text)
	if err != nil {
		return nil, fmt.Errorf("parsing ClickHouse's configuration: %w", err)
	}
	var out bytes.Buffer
	if err := t.Execute(&out, escaped); err != nil {
		return nil, fmt.Errorf("filling ClickHouse's configuration: %w", err)
	}
	return out.Bytes(), nil
}

// seedSystem writes the definition of the system database before the engine's
// first start. Without it the engine keeps that database in memory only, and the
// query log with it.
func (d clickHouseDir) seedSystem() error {
	metadata := filepath.Join(d.data(), "metadata")
	definition := filepath.Join(metadata, "system.sql")
	if _, err := os.Stat(definition); err == nil {
		return nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("looking for the system database: %w", err)
	}
	id := uuid.NewString()
	store := filepath.Join("store", id[:3], id)
	for _, dir := range []string{metadata, filepath.Join(d.data(), store)} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("seeding the system database: %w", err)
		}
	}
	link := filepath.Join(metadata, "system")
	if err := os.Remove(link); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("seeding the system database: %w", err)
	}
	if err := os.Symlink(filepath.Join("..", store), link); err != nil {
		return fmt.Errorf("seeding the system database: %w", err)
	}
	// Last: its presence says that the rest is there.
	text := fmt.Sprintf("ATTACH DATABASE _ UUID '%s'\nENGINE = Atomic\n", id)
	if err := os.WriteFile(definition, []byte(text), 0o600); err != nil {
		return fmt.Errorf("seeding the system database: %w", err)
	}
	return nil
}

func sha256Hex(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}

// ClickHouse is where a ClickHouse server is and how to enter it.
type ClickHouse struct {
	HTTP           string `json:"http"`   // http://host:port
	Native         string `json:"native"` // host:port
	User           string `json:"user"`
	Password       string `json:"password"`
	Reader         string `json:"-"` // a user that may only read, within limits
	ReaderPassword string `json:"-"`
	Database       string `json:"database"`
}

// Query runs one statement over HTTP and returns its answer as text: for health
// checks and set-up, where a driver would be too much.
func (c ClickHouse) Query(ctx context.Context, statement string) (string, error) {
	// The database may not exist yet, so it is not named.
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.HTTP+"/?"+url.Values{"wait_end_of_query": {"1"}}.Encode(), strings.NewReader(statement))
	if err != nil {
		return "", fmt.Errorf("making a ClickHouse request: %w", err)
	}
	req.Close = true
	req.Header.Set("X-ClickHouse-User", c.User)
	req.Header.Set("X-ClickHouse-Key", c.Password)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", fmt.Errorf("asking ClickHouse: %w", err)
	}
	defer func() { _ = resp.Body.Close() }() // read to its end below
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return "", fmt.Errorf("reading ClickHouse's answer: %w", err)
	}
	text := strings.TrimSpace(string(body))
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("the answer of ClickHouse is %s: %s", resp.Status, text)
	}
	return text, nil
}
