package workers

import (
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	commonpb "go.temporal.io/api/common/v1"
	"go.temporal.io/sdk/converter"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"millrace/internal/fault"
)

func testKey(id string, b byte) string {
	return id + ":" + base64.StdEncoding.EncodeToString([]byte(strings.Repeat(string(rune('a'+b)), 32))) + "\n"
}

func mustKeys(t *testing.T, text string) *codec {
	t.Helper()
	path := filepath.Join(t.TempDir(), "keys")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := newCodec(path)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestWhatIsEncryptedIsReadBackAndShowsNothing(t *testing.T) {
	t.Parallel()
	c := mustKeys(t, "# keys\n\n"+testKey("2026-10", 0))
	rapid.Check(t, func(t *rapid.T) {
		secret := rapid.StringN(8, 200, -1).Draw(t, "secret")
		p := &commonpb.Payload{Metadata: map[string][]byte{"encoding": []byte("json/plain"), "of": []byte("secret")}, Data: []byte("table " + secret)}
		one, err := c.Encode([]*commonpb.Payload{p, p})
		if err != nil {
			t.Fatal(err)
		}
		wire, err := proto.Marshal(one[0])
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(wire), "table ") || string(one[0].GetData()) == string(one[1].GetData()) {
			t.Fatal("the text shows, or equal texts look equal")
		}
		back, err := c.Decode(one)
		if err != nil || !proto.Equal(back[0], p) || !proto.Equal(back[1], p) {
			t.Fatalf("%v, %v", back, err)
		}
		flip := rapid.IntRange(0, len(one[0].GetData())-1).Draw(t, "flip")
		one[0].Data[flip] ^= 1
		if _, err := c.Decode(one[:1]); err == nil {
			t.Fatal("a payload that was changed opens")
		}
	})
}

func TestKeysAreChangedByPuttingANewOneInFront(t *testing.T) {
	t.Parallel()
	old := mustKeys(t, testKey("a", 0))
	both := mustKeys(t, testKey("b", 1)+testKey("a", 0))
	onlyNew := mustKeys(t, testKey("b", 1))
	p := []*commonpb.Payload{{Data: []byte("x")}}
	before, err := old.Encode(p)
	if err != nil {
		t.Fatal(err)
	}
	if back, err := both.Decode(before); err != nil || string(back[0].GetData()) != "x" {
		t.Errorf("%v, %v", back, err)
	}
	after, err := both.Encode(p)
	if err != nil {
		t.Fatal(err)
	}
	if got := string(after[0].GetMetadata()["encryption-key-id"]); got != "b" {
		t.Errorf("encrypted with %s", got)
	}
	for what, c := range map[string]struct {
		codec *codec
		in    []*commonpb.Payload
	}{"a key that is not there": {onlyNew, before}, "a key of the same name": {mustKeys(t, testKey("a", 2)), before}, "a text that is cut off": {old, []*commonpb.Payload{{Metadata: before[0].GetMetadata(), Data: []byte("abc")}}}} {
		_, err := c.codec.Decode(c.in)
		if id, _ := fault.IDOf(err); id != "MR-NIT-002" {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestWhatIsNotEncryptedIsTakenAsItIs(t *testing.T) {
	t.Parallel()
	c := converter.NewCodecDataConverter(converter.GetDefaultDataConverter(), mustKeys(t, testKey("a", 0)))
	plain, err := converter.GetDefaultDataConverter().ToPayload(map[string]string{"table": "events_page"})
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]string
	if err := c.FromPayload(plain, &got); err != nil || got["table"] != "events_page" {
		t.Errorf("%v, %v", got, err)
	}
	var raw converter.RawValue
	locked, err := c.ToPayloads(map[string]string{"table": "events_page"})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.FromPayloads(locked, &raw); err != nil || string(raw.Payload().GetData()) != `{"table":"events_page"}` {
		t.Errorf("a workflow's raw input is %s, %v", raw.Payload(), err)
	}
}

func TestAKeyFileThatIsWrongIsRefusedWithoutShowingIt(t *testing.T) {
	t.Parallel()
	short := base64.StdEncoding.EncodeToString([]byte("short"))
	for what, c := range map[string]struct {
		text string
		mode os.FileMode
		want []string
	}{
		"others may read it": {testKey("a", 0), 0o640, []string{"has mode 0640, not 0600"}},
		"no key":             {"# nothing\n", 0o600, []string{"there is no key"}},
		"several problems":   {"abcdefgh\na:" + short + "\n" + testKey("b", 1) + testKey("b", 2), 0o600, []string{"line 1 is not", "line 2: key a has 5 bytes, not 32", "line 4: key b is there twice"}},
		"an id with a space": {"a b:" + short, 0o600, []string{"line 1 is not"}},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "keys")
			if err := os.WriteFile(path, []byte(c.text), c.mode); err != nil {
				t.Fatal(err)
			}
			_, err := newCodec(path)
			if id, _ := fault.IDOf(err); id != "MR-NIT-001" {
				t.Fatal(err)
			}
			for _, w := range c.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("%v does not say %q", err, w)
				}
			}
			if strings.Contains(err.Error(), short) || strings.Contains(err.Error(), "abcdefgh") {
				t.Errorf("shows the key: %v", err)
			}
		})
	}
	if _, err := newCodec(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("a file that is not there")
	}
	if diff := cmp.Diff("a", mustKeys(t, testKey("a", 0)).first); diff != "" {
		t.Error(diff)
	}
}
