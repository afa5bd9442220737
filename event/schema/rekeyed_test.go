package schema

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"millrace/event"
)

func TestTheEncoderOfRekeyedEventsWritesWhatTheGeneralOneDoes(t *testing.T) {
	codecs, err := NewCodecs()
	if err != nil {
		t.Fatal(err)
	}
	codecs.AssignLocal()
	rapid.Check(t, func(t *rapid.T) {
		r := rapid.Make[event.Rekeyed]().Draw(t, "event")
		want, err := codecs.Append(nil, event.TopicRekeyIP, &r)
		if err != nil {
			t.Fatal(err)
		}
		got := codecs.AppendRekeyed(nil, event.TopicRekeyIP, &r)
		if !bytes.Equal(got, want) {
			t.Fatalf("%x, want %x", got, want)
		}
		var back event.Rekeyed
		if err := codecs.DecodeRekeyed(t.Context(), event.TopicRekeyIP, got, &back); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(r, back); d != "" {
			t.Fatal(d)
		}
		cut := rapid.IntRange(0, len(got)-1).Draw(t, "cut")
		if err := codecs.DecodeRekeyed(t.Context(), event.TopicRekeyIP, got[:cut], &back); err == nil {
			t.Fatalf("a value cut after %d of %d bytes is decoded", cut, len(got))
		}
	})
}
