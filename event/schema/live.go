package schema

import "millrace/event"

// AppendLiveUpdate encodes a value of live.updates, of which jobs write one for about every event. A test compares the bytes with those of the general encoder.
func (c *Codecs) AppendLiveUpdate(b []byte, u *event.LiveUpdate) []byte {
	b = appendString(c.subjects[event.TopicLiveUpdates].header(b), u.Tenant)
	b = appendString(appendString(b, u.Key), u.Field)
	b = append(appendLong(b, int64(len(u.Value))), u.Value...)
	return appendLong(b, u.ExpiresAt)
}
