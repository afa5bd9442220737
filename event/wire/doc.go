// Package wire turns what producers send into events. It stands between the gateway's HTTP handler, which hands it decompressed request bodies, and package
// event/schema, which encodes the result.
//
// A Format is one row of a table of paths (Formats): how a body is split into the texts of single events, and how one text becomes an event.Event. Native events
// are decoded by tokens: no reflection, no map of anything, and the strings of a decoded event are views of the request body (see Decoder.Decode). What clients
// of other platforms send is translated into native text, which the same decoder reads, so that masks, exact money and bounds are the same for all.
//
// Whatever no field of ours takes ends up in Event.Properties, so nothing a producer sent is lost; what cannot be understood is a Failure with one of the
// reasons of package event, which concerns that event alone. Card numbers are masked and personal fields redacted here, before anything can become durable.
package wire

// Bounds of what is decoded.
const (
	MaxEventBytes = 1 << 20 // text of one event
	MaxDepth      = 64      // nesting of objects and arrays within an event, its own braces included
	MaxItems      = 10_000  // items of one event
)

// Failure says why a text is no event: the makings of an event.Failed.
type Failure struct {
	Reason  string // one of event's Reason constants
	Path    string // "items[2].price"; "" for the whole text
	Message string // in words; never holds what was sent
	EventID string // if it had been read by then
}

// Error makes a Failure an error.
func (f *Failure) Error() string {
	if f.Path == "" {
		return f.Reason + ": " + f.Message
	}
	return f.Reason + " at " + f.Path + ": " + f.Message
}
