package wire

import (
	"bytes"
	"testing"

	"github.com/go-faster/jx"
	"pgregory.net/rapid"
)

// sameElement fails if the fast way and the careful way cut differently.
func sameElement(t interface {
	Fatalf(format string, args ...any)
}, body []byte,
) {
	fast := scan(body)
	if fast == nil {
		return
	}
	var d jx.Decoder
	if careful := carefulElement(&d, body); !bytes.Equal(fast, careful) {
		t.Fatalf("%q\nscan:    %q\ncareful: %q", body, fast, careful)
	}
}

func TestWellFormedElementsAreCutFast(t *testing.T) {
	for _, body := range []string{`{}`, benchText, `{"a":"\"}","b":[{"c":1},{"d":"\\"}]}`, `{"a" : [ {} , {} ] }`} {
		if got := string(scan([]byte(body + `,{"next":1}]`))); got != body {
			t.Errorf("%s became %s", body, got)
		}
	}
}

func TestElementsAreCutAlikeByBothWays(t *testing.T) {
	piece := rapid.SampledFrom([]string{`{`, `}`, `[`, `]`, `,`, `:`, `"`, `\`, "\n", ` `, `"a"`, `1`, `"a":1`, `,"b":2`, `{"c":3}`, `,{`, `"\""`, `x`, `null`, "\x00", `]}`, `"a":{"b":[`})
	rapid.Check(t, func(t *rapid.T) {
		var body []byte
		for _, p := range rapid.SliceOfN(piece, 1, 24).Draw(t, "pieces") {
			body = append(body, p...)
		}
		sameElement(t, append([]byte("{"), body...))
	})
}

func FuzzElement(f *testing.F) {
	for _, s := range []string{benchText + `,{}]`, `{"a":1,{"b":2}]`, `{"a":"b`, `{"a":[1}]`, "{\"a\":\"\n\"}"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) { sameElement(t, body) })
}
