package activities

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// CertificateSchema names the form of certificates.
const CertificateSchema = "millrace/erasure-certificate/1"

// EraseCertificate is what an erasure did, where it looked, and what is left until when. It holds no id of a person.
type EraseCertificate struct {
	Schema       string             `json:"schema"`
	Request      string             `json:"request"`
	Phase        string             `json:"phase"` // logical: no reader finds the subjects; physical: no file has them
	Subjects     int64              `json:"subjects"`
	RequestedAt  string             `json:"requested_at"`
	IssuedAt     string             `json:"issued_at"`
	PhysicalBy   string             `json:"physical_by"` // when snapshots and files from before the request go
	LedgerDigest string             `json:"ledger_digest"`
	Cut          map[string]any     `json:"cut"` // raw topic → end offset of each partition: what came later is new
	Stores       []CertifiedStore   `json:"stores"`
	Residues     []CertifiedResidue `json:"residues"`
}

// CertifiedStore is one place of the inventory.
type CertifiedStore struct {
	Store   string           `json:"store"`
	Name    string           `json:"name"`
	How     string           `json:"how"`
	State   string           `json:"state"` // erased, expires, holds none, remains, not there
	Numbers map[string]int64 `json:"numbers,omitempty"`
}

// CertifiedResidue is something of the subjects that is still there, or may be.
type CertifiedResidue struct {
	Store   string `json:"store"`
	Name    string `json:"name"`
	What    string `json:"what"`
	Expires string `json:"expires,omitempty"` // "" if nothing ends it
}

// SignedCertificate is a certificate as it is kept and handed out.
type SignedCertificate struct {
	Certificate json.RawMessage      `json:"certificate"`
	Signature   CertificateSignature `json:"signature"`
}

// CertificateSignature is Ed25519 (RFC 8032) over the certificate in canonical form (RFC 8785).
type CertificateSignature struct {
	Algorithm string `json:"algorithm"`
	PublicKey string `json:"public_key"` // base64
	Value     string `json:"value"`      // base64
}

const ed25519Name = "Ed25519"

// ErrCertificate says that a certificate was not signed by the key, or was changed.
var ErrCertificate = errors.New("the certificate is not what was signed")

// SignCertificate makes the file.
func SignCertificate(key ed25519.PrivateKey, c EraseCertificate) ([]byte, error) {
	text, err := json.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("certificate: %w", err)
	}
	canonical, err := canonicalJSON(text)
	if err != nil {
		return nil, fmt.Errorf("certificate: %w", err)
	}
	public, ok := key.Public().(ed25519.PublicKey)
	if !ok {
		return nil, errors.New("certificate: the key has no public half")
	}
	return canonicalOf(SignedCertificate{
		Certificate: canonical,
		Signature: CertificateSignature{
			Algorithm: ed25519Name, PublicKey: base64.StdEncoding.EncodeToString(public), Value: base64.StdEncoding.EncodeToString(ed25519.Sign(key, canonical)),
		},
	})
}

func canonicalOf(v any) ([]byte, error) {
	text, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	return canonicalJSON(text)
}

// VerifyCertificate checks the signature of a file by a public key and gives what was signed. ErrCertificate: it is not by that key, or not as it was.
func VerifyCertificate(public ed25519.PublicKey, file []byte) (EraseCertificate, error) {
	var c EraseCertificate
	var s SignedCertificate
	if err := json.Unmarshal(file, &s); err != nil {
		return c, fmt.Errorf("%w: it is no JSON: %w", ErrCertificate, err)
	}
	if s.Signature.Algorithm != ed25519Name {
		return c, fmt.Errorf("%w: it is signed with %q, not with %s", ErrCertificate, s.Signature.Algorithm, ed25519Name)
	}
	value, err := base64.StdEncoding.DecodeString(s.Signature.Value)
	if err != nil {
		return c, fmt.Errorf("%w: signature: %w", ErrCertificate, err)
	}
	canonical, err := canonicalJSON(s.Certificate)
	if err != nil {
		return c, fmt.Errorf("%w: %w", ErrCertificate, err)
	}
	if len(public) != ed25519.PublicKeySize || !ed25519.Verify(public, canonical, value) {
		return c, fmt.Errorf("%w: the signature is not by the key %s", ErrCertificate, base64.StdEncoding.EncodeToString(public))
	}
	if err := json.Unmarshal(canonical, &c); err != nil {
		return c, fmt.Errorf("%w: %w", ErrCertificate, err)
	}
	return c, nil
}

// canonicalJSON gives JSON in the canonical form of RFC 8785, for what certificates are made of: numbers are integers that a float64 holds exactly.
func canonicalJSON(text []byte) ([]byte, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("something stands behind the value")
	}
	return appendCanonical(nil, v)
}

func appendCanonical(b []byte, v any) ([]byte, error) {
	var err error
	switch v := v.(type) {
	case nil:
		return append(b, "null"...), nil
	case bool:
		return strconv.AppendBool(b, v), nil
	case string:
		return appendText(b, v)
	case json.Number:
		n, err := strconv.ParseInt(v.String(), 10, 64)
		if err != nil || n > 1<<53 || n < -(1<<53) {
			return nil, fmt.Errorf("%s is no integer of at most 2^53", v)
		}
		return strconv.AppendInt(b, n, 10), nil
	case []any:
		b = append(b, '[')
		for i, e := range v {
			if i > 0 {
				b = append(b, ',')
			}
			if b, err = appendCanonical(b, e); err != nil {
				return nil, err
			}
		}
		return append(b, ']'), nil
	case map[string]any:
		keys := make([]string, 0, len(v))
		for k := range v {
			keys = append(keys, k)
		}
		slices.SortFunc(keys, func(a, b string) int { return slices.Compare(utf16.Encode([]rune(a)), utf16.Encode([]rune(b))) })
		b = append(b, '{')
		for i, k := range keys {
			if i > 0 {
				b = append(b, ',')
			}
			if b, err = appendText(b, k); err != nil {
				return nil, err
			}
			b = append(b, ':')
			if b, err = appendCanonical(b, v[k]); err != nil {
				return nil, err
			}
		}
		return append(b, '}'), nil
	}
	return nil, fmt.Errorf("%T has no canonical form", v)
}

// appendText writes a string as ECMAScript's JSON.stringify does.
func appendText(b []byte, s string) ([]byte, error) {
	if !utf8.ValidString(s) {
		return nil, errors.New("a text is not UTF-8")
	}
	const short = "\b\t\n\f\r\"\\"
	b = append(b, '"')
	for _, r := range s {
		switch i := strings.IndexRune(short, r); {
		case i >= 0:
			b = append(b, '\\', "btnfr\"\\"[i])
		case r < 0x20:
			b = fmt.Appendf(b, "\\u%04x", r)
		default:
			b = utf8.AppendRune(b, r)
		}
	}
	return append(b, '"'), nil
}

// safeNumber keeps what is no amount but a name, as ids of snapshots are, out of certificates: a float64 would not hold it.
func safeNumber(n int64) bool { return n <= math.MaxInt64>>10 && n >= -(math.MaxInt64>>10) }
