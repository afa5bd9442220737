package wire

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"hash"
)

// Secret is a tenant's HMAC key. Addresses and cards are stored only as HMACs by it, so that equal ones can be found but none can be read.
type Secret struct {
	ID  string // prefix of everything made with the key, so that keys can be changed
	Key []byte
}

// Sealer makes HMACs by one key. It belongs to one goroutine.
type Sealer struct {
	id  string
	mac hash.Hash
	sum [sha256.Size]byte
}

// NewSealer makes a sealer.
func NewSealer(s Secret) *Sealer { return &Sealer{id: s.ID, mac: hmac.New(sha256.New, s.Key)} }

// append writes id, '.' and 128 bits of the HMAC of what in hex. The kind of value is hashed too, so that equal texts of different meaning differ.
func (s *Sealer) append(dst []byte, kind string, what []byte) []byte {
	s.mac.Reset()
	_, _ = s.mac.Write([]byte(kind)) // a hash does not fail
	_, _ = s.mac.Write([]byte{0})
	_, _ = s.mac.Write(what)
	sum := s.mac.Sum(s.sum[:0])
	dst = append(append(dst, s.id...), '.')
	return hex.AppendEncode(dst, sum[:16])
}

// seal is append as a string.
func (s *Sealer) seal(kind string, what []byte) string {
	return string(s.append(make([]byte, 0, len(s.id)+33), kind, what))
}

// sealed says whether b is what append writes.
func (s *Sealer) sealed(b []byte) bool {
	if len(b) != len(s.id)+33 || string(b[:len(s.id)]) != s.id || b[len(s.id)] != '.' {
		return false
	}
	_, err := hex.DecodeString(string(b[len(s.id)+1:]))
	return err == nil
}
