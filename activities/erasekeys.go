package activities

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/gofrs/flock"

	"millrace/event"
	"millrace/internal/fault"
)

// The files of the keys of erasures, mode 0600: 32 bytes in base64.
const (
	subjectKeyName = "subject.key"
	signingKeyName = "signing.key"
)

// LoadSubjectKey reads the key of the digests of erased subjects, and makes it where there is none. Whoever filters by the ledger needs the same one.
func LoadSubjectKey(dir string) (event.SubjectKey, error) {
	var key event.SubjectKey
	b, err := loadKey(dir, subjectKeyName)
	copy(key[:], b)
	return key, err
}

// ReadSubjectKey reads the key and makes none: a command that finds none is on the wrong machine or folder, and one that it made would keep nobody away.
func ReadSubjectKey(dir string) (event.SubjectKey, error) {
	if err := hasKey(dir, subjectKeyName); err != nil {
		return event.SubjectKey{}, err
	}
	return LoadSubjectKey(dir)
}

func hasKey(dir, file string) error {
	if _, err := os.Stat(filepath.Join(dir, file)); err != nil {
		return fault.Newf("MR-ERA-002", "the platform's key is not here: %w", err)
	}
	return nil
}

// LoadSigningKey reads the key that certificates are signed with, and makes it where there is none.
func LoadSigningKey(dir string) (ed25519.PrivateKey, error) {
	b, err := loadKey(dir, signingKeyName)
	if err != nil {
		return nil, err
	}
	return ed25519.NewKeyFromSeed(b), nil
}

// loadKey reads 32 bytes. Processes that start at the same time on one folder agree on them.
func loadKey(dir, file string) (key []byte, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fault.Newf("MR-ERA-002", "making the folder of erasures: %w", err)
	}
	lock := flock.New(filepath.Join(dir, file+".lock"))
	if err := lock.Lock(); err != nil {
		return nil, fault.Newf("MR-ERA-002", "locking %s: %w", file, err)
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	path := filepath.Join(dir, file)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		key = make([]byte, 32)
		_, _ = rand.Read(key) // never fails (crypto/rand)
		return key, writePrivate(path, []byte(base64.StdEncoding.EncodeToString(key)+"\n"))
	}
	if err == nil {
		key, err = base64.StdEncoding.DecodeString(strings.TrimSpace(string(text)))
	}
	if err == nil && len(key) != 32 {
		err = fmt.Errorf("it has %d bytes, not 32", len(key))
	}
	if err != nil {
		return nil, fault.Newf("MR-ERA-002", "key %s: %w", path, err)
	}
	return key, nil
}

// writePrivate puts a file in place in one step, readable by its owner only, and durable.
func writePrivate(path string, text []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*.new") // 0600
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	_, err = f.Write(text)
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, errors.Join(err, os.Remove(f.Name())))
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return errors.Join(d.Sync(), d.Close())
}
