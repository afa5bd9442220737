package event

// Failed is a typed failed event: what the gateway could not understand or a store refused. Nothing is dropped: it is kept with the reason, the path of the
// error and the payload, and can be replayed after a fix.
type Failed struct {
	IngestedAt   int64  `avro:"ingested_at"`
	RawTopic     string `avro:"raw_topic"`
	RawPartition int32  `avro:"raw_partition"`
	RawOffset    int64  `avro:"raw_offset"`

	ID            string `avro:"failed_id"` // FailedID
	EventID       string `avro:"event_id,omitzero"`
	FailedAt      int64  `avro:"failed_at"`
	ReceivedAt    int64  `avro:"received_at"`
	Tenant        string `avro:"tenant"`
	Reason        string `avro:"reason"` // one of the Reason constants
	Error         string `avro:"error"`
	ErrorPath     string `avro:"error_path"` // JSON path of what was wrong: "items[2].price"; "" for the whole payload
	Payload       string `avro:"payload"`    // as received after masking, cut at MaxFailedPayload
	Source        string `avro:"source"`
	PayloadBytes  int64  `avro:"payload_bytes"`  // full length
	PayloadDigest string `avro:"payload_digest"` // xxh128 of the full payload, hex; "" if it is whole
	ContentType   string `avro:"content_type"`
}

// MaxFailedPayload is how much of a failed payload is kept.
const MaxFailedPayload = 256 << 10

// Reasons of failed events. They are a promise: dashboards group by them.
const (
	ReasonMalformed  = "malformed"   // the bytes are not what they say they are: JSON, gzip, UTF-8
	ReasonSchema     = "schema"      // a field has a wrong type or a required field is missing
	ReasonSize       = "size"        // larger than an event may be
	ReasonDepth      = "depth"       // nested deeper than 64
	ReasonBadTime    = "bad_time"    // occurred_at outside 1990-01-01 … received_at + 1 day
	ReasonBadAmount  = "bad_amount"  // no exact amount below 10^12 units with at most 6 decimals
	ReasonBadName    = "bad_name"    // not a well-formed event name
	ReasonUnknownKey = "unknown_key" // the write key is not known, or revoked
	ReasonCategory   = "category"    // the write key may not send this category
	ReasonRate       = "rate"        // over the key's rate, from a client that cannot retry
	ReasonStore      = "store"       // a store refused the row
)

// AppendKey writes the record key of a failed event: its id, so that copies meet in one task.
func (f *Failed) AppendKey(dst []byte) []byte {
	dst = append(dst, f.Tenant...)
	dst = append(dst, Sep, 'f', Sep)
	return append(dst, f.ID...)
}
