package embedded

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Secrets are the passwords of one data folder's servers, made once and kept.
type Secrets struct {
	ClickHousePassword       string `json:"clickhouse_password"`
	ClickHouseReaderPassword string `json:"clickhouse_reader_password"`
}

func loadSecrets(dir string) (Secrets, error) {
	var s Secrets
	path := filepath.Join(dir, "secrets.json")
	b, err := os.ReadFile(path)
	switch {
	case err == nil:
		if err := json.Unmarshal(b, &s); err != nil {
			return s, fmt.Errorf("decoding %s: %w", path, err)
		}
	case !errors.Is(err, fs.ErrNotExist):
		return s, fmt.Errorf("reading the secrets: %w", err)
	}
	made := false
	for _, secret := range []*string{&s.ClickHousePassword, &s.ClickHouseReaderPassword} {
		if *secret == "" {
			*secret, made = rand.Text(), true
		}
	}
	if !made {
		return s, nil
	}
	if b, err = json.Marshal(s); err != nil {
		return s, fmt.Errorf("encoding the secrets: %w", err)
	}
	if err := os.WriteFile(path+".new", b, 0o600); err != nil {
		return s, fmt.Errorf("writing the secrets: %w", err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return s, fmt.Errorf("writing the secrets: %w", err)
	}
	return s, nil
}
