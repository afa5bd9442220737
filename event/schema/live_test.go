package schema

import (
	"bytes"
	"testing"

	"pgregory.net/rapid"

	"millrace/event"
)

func TestALiveUpdateIsWrittenAsTheGeneralEncoderDoes(t *testing.T) {
	codecs, err := NewCodecs()
	if err != nil {
		t.Fatal(err)
	}
	codecs.AssignLocal()
	rapid.Check(t, func(t *rapid.T) {
		u := event.LiveUpdate{
			Tenant: rapid.String().Draw(t, "tenant"), Key: rapid.String().Draw(t, "key"), Field: rapid.String().Draw(t, "field"), Value: rapid.SliceOf(rapid.Byte()).Draw(t, "value"), ExpiresAt: rapid.Int64().Draw(t, "expires"),
		}
		want, err := codecs.Append(nil, event.TopicLiveUpdates, &u)
		if err != nil {
			t.Fatal(err)
		}
		if got := codecs.AppendLiveUpdate(nil, &u); !bytes.Equal(got, want) {
			t.Fatalf("%x, want %x", got, want)
		}
	})
}
