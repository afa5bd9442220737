package gateway

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/gofrs/flock"

	"millrace/event/wire"
	"millrace/internal/fault"
)

// keysName is the file of the tenants' HMAC keys in the data folder.
const keysName = "keys.json"

// tenantKey is one key in keys.json: {"default": [{"id": "k1", "key": "…"}]}. The last one of a tenant is in use; earlier ones tell what old values were made with.
type tenantKey struct {
	ID  string `json:"id"`
	Key []byte `json:"key"` // base64
}

// loadKeys reads the tenants' keys and makes those that are missing. Gateways that start at the same time on one folder agree on them.
func loadKeys(dir string, tenants []string) (out map[string]wire.Secret, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("making the data folder: %w", err)
	}
	lock := flock.New(filepath.Join(dir, keysName+".lock"))
	if err := lock.Lock(); err != nil {
		return nil, fmt.Errorf("locking %s: %w", keysName, err)
	}
	defer func() { err = errors.Join(err, lock.Close()) }()

	name := filepath.Join(dir, keysName)
	all := map[string][]tenantKey{}
	text, err := os.ReadFile(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, fault.Newf("MR-GW-002", "reading %s: %w", name, err)
	default:
		if err := json.Unmarshal(text, &all); err != nil {
			return nil, fault.Newf("MR-GW-002", "reading %s: %w", name, err)
		}
	}
	changed := false
	out = map[string]wire.Secret{}
	for _, t := range tenants {
		if len(all[t]) == 0 {
			raw := make([]byte, 32)
			_, _ = rand.Read(raw) // never fails (crypto/rand)
			all[t] = []tenantKey{{ID: base64.RawURLEncoding.EncodeToString(raw[:3]), Key: raw[3:]}}
			changed = true
		}
		last := all[t][len(all[t])-1]
		if last.ID == "" || len(last.Key) < 16 {
			return nil, fault.Newf("MR-GW-002", "%s: the key of tenant %q has no id or less than 16 bytes", name, t)
		}
		out[t] = wire.Secret{ID: last.ID, Key: last.Key}
	}
	if !changed {
		return out, nil
	}
	text, err = json.MarshalIndent(all, "", " ")
	if err != nil {
		return nil, fmt.Errorf("writing %s: %w", name, err)
	}
	return out, writeDurably(name, text)
}

func writeDurably(name string, text []byte) (err error) {
	f, err := os.OpenFile(name+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("writing %s: %w", name, err)
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("writing %s: %w", name, err)
	}
	if err := os.Rename(name+".new", name); err != nil {
		return fmt.Errorf("writing %s: %w", name, err)
	}
	d, err := os.Open(filepath.Dir(name))
	if err != nil {
		return fmt.Errorf("writing %s: %w", name, err)
	}
	return errors.Join(d.Sync(), d.Close())
}
