package workers

import (
	"bufio"
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"

	commonpb "go.temporal.io/api/common/v1"
	"go.temporal.io/sdk/converter"
	"google.golang.org/protobuf/proto"

	"millrace/internal/fault"
)

// Metadata of an encrypted payload. The names are those of Temporal's samples, so that other codecs recognise it.
const (
	encodingKey       = converter.MetadataEncoding
	encodingEncrypted = "binary/encrypted"
	keyIDKey          = "encryption-key-id"
)

// codec encrypts what Temporal stores of workflows: inputs, results, heartbeats, summaries. AES-256-GCM with a random nonce a payload; the key's id is authenticated. It
// encrypts with the first key of its file and decrypts with any, so that a key is changed by putting a new one in front. What is not encrypted is taken as it is: the UI
// starts workflows with plain JSON, and histories are older than the key.
type codec struct {
	first string
	keys  map[string]cipher.AEAD
}

var _ converter.PayloadCodec = (*codec)(nil)

var keyIDForm = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

// newCodec reads a key file: a line a key, "id:base64 of 32 bytes"; # begins a comment. Others than its owner must not be able to read it.
func newCodec(path string) (*codec, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fault.Newf("MR-NIT-001", "keys of Temporal payloads: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fault.Newf("MR-NIT-001", "keys of Temporal payloads: %s has mode %04o, not 0600", path, info.Mode().Perm())
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fault.Newf("MR-NIT-001", "keys of Temporal payloads: %w", err)
	}
	c, err := parseKeys(text)
	if err != nil {
		return nil, fault.Newf("MR-NIT-001", "keys of Temporal payloads in %s: %w", path, err)
	}
	return c, nil
}

func parseKeys(text []byte) (*codec, error) {
	c := &codec{keys: map[string]cipher.AEAD{}}
	var errs []error
	lines := bufio.NewScanner(bytes.NewReader(text))
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		id, encoded, ok := strings.Cut(line, ":")
		key, err := base64.StdEncoding.DecodeString(strings.TrimSpace(encoded))
		switch {
		case !ok || err != nil || !keyIDForm.MatchString(id): // the line is not shown: it may be a key
			errs = append(errs, fmt.Errorf("line %d is not an id of letters, digits, . _ - and base64 after a colon", n))
		case len(key) != 32:
			errs = append(errs, fmt.Errorf("line %d: key %s has %d bytes, not 32", n, id, len(key)))
		case c.keys[id] != nil:
			errs = append(errs, fmt.Errorf("line %d: key %s is there twice", n, id))
		default:
			block, err := aes.NewCipher(key)
			if err == nil {
				c.keys[id], err = cipher.NewGCM(block)
			}
			if err != nil {
				errs = append(errs, fmt.Errorf("line %d: %w", n, err))
			}
			if c.first == "" {
				c.first = id
			}
		}
	}
	if err := lines.Err(); err != nil {
		errs = append(errs, err)
	}
	if len(errs) == 0 && c.first == "" {
		errs = append(errs, errors.New("there is no key; `openssl rand -base64 32` makes one"))
	}
	return c, errors.Join(errs...)
}

// Encode implements converter.PayloadCodec.
func (c *codec) Encode(payloads []*commonpb.Payload) ([]*commonpb.Payload, error) {
	out := make([]*commonpb.Payload, len(payloads))
	for i, p := range payloads {
		plain, err := proto.Marshal(p)
		if err != nil {
			return nil, fmt.Errorf("encrypting a payload: %w", err)
		}
		key := c.keys[c.first]
		nonce := make([]byte, key.NonceSize(), key.NonceSize()+len(plain)+key.Overhead())
		if _, err := rand.Read(nonce); err != nil {
			return nil, fmt.Errorf("encrypting a payload: %w", err)
		}
		out[i] = &commonpb.Payload{
			Metadata: map[string][]byte{encodingKey: []byte(encodingEncrypted), keyIDKey: []byte(c.first)},
			Data:     key.Seal(nonce, nonce, plain, []byte(c.first)),
		}
	}
	return out, nil
}

// Decode implements converter.PayloadCodec.
func (c *codec) Decode(payloads []*commonpb.Payload) ([]*commonpb.Payload, error) {
	out := make([]*commonpb.Payload, len(payloads))
	for i, p := range payloads {
		if string(p.GetMetadata()[encodingKey]) != encodingEncrypted {
			out[i] = p
			continue
		}
		id := string(p.GetMetadata()[keyIDKey])
		key, ok := c.keys[id]
		if !ok {
			return nil, fault.Newf("MR-NIT-002", "a payload is encrypted with key %.64q, which the key file does not have", id)
		}
		data := p.GetData()
		if len(data) < key.NonceSize() {
			return nil, fault.Newf("MR-NIT-002", "a payload encrypted with key %s is cut off", id)
		}
		plain, err := key.Open(nil, data[:key.NonceSize()], data[key.NonceSize():], []byte(id))
		if err != nil {
			return nil, fault.Newf("MR-NIT-002", "a payload does not open with key %s: %w", id, err)
		}
		out[i] = &commonpb.Payload{}
		if err := proto.Unmarshal(plain, out[i]); err != nil {
			return nil, fault.Newf("MR-NIT-002", "a payload encrypted with key %s: %w", id, err)
		}
	}
	return out, nil
}
