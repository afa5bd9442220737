package schema

import (
	"context"
	"unsafe"

	"millrace/event"
	"millrace/internal/fault"
)

// Values of rekey.card, rekey.ip and rekey.user. The fields are those of rekeyedFields in their order; a test compares the bytes with those of the general encoder.

// AppendRekeyedBody encodes the body of a value, which is the same on each of the topics.
func AppendRekeyedBody(b []byte, r *event.Rekeyed) []byte {
	for _, s := range [...]string{r.Entity, r.Key, r.Tenant, r.EventID, r.Name} {
		b = appendString(b, s)
	}
	for _, n := range [...]int64{r.At, r.OccurredAt, r.ReceivedAt, r.IngestedAt} {
		b = appendLong(b, n)
	}
	for _, s := range [...]string{r.VisitorID, r.UserID, r.SessionID, r.OrderID, r.Source} {
		b = appendString(b, s)
	}
	b = appendString(appendLong(b, r.Value), r.Currency)
	b = appendLong(b, r.Units)
	for _, s := range [...]string{r.Country, r.Region, r.City, r.Device, r.DeviceType, r.DeviceOS, r.DeviceBrowser, r.IPHash, r.CardFingerprint, r.CardBIN, r.PaymentMethod} {
		b = appendString(b, s)
	}
	if r.Declined {
		return append(b, 1)
	}
	return append(b, 0)
}

// AppendRekeyed encodes a value of one of the topics.
func (c *Codecs) AppendRekeyed(b []byte, topic string, r *event.Rekeyed) []byte {
	return AppendRekeyedBody(c.subjects[topic].header(b), r)
}

// DecodeRekeyedBody decodes a body. The strings of r are body's own bytes.
func DecodeRekeyedBody(body []byte, r *event.Rekeyed) error {
	if len(body) == 0 {
		return errShort
	}
	x := reader{src: unsafe.String(&body[0], len(body))}
	for _, s := range [...]*string{&r.Entity, &r.Key, &r.Tenant, &r.EventID, &r.Name} {
		*s = x.string()
	}
	for _, n := range [...]*int64{&r.At, &r.OccurredAt, &r.ReceivedAt, &r.IngestedAt} {
		*n = x.long()
	}
	for _, s := range [...]*string{&r.VisitorID, &r.UserID, &r.SessionID, &r.OrderID, &r.Source} {
		*s = x.string()
	}
	r.Value, r.Currency, r.Units = x.long(), x.string(), x.long()
	for _, s := range [...]*string{&r.Country, &r.Region, &r.City, &r.Device, &r.DeviceType, &r.DeviceOS, &r.DeviceBrowser, &r.IPHash, &r.CardFingerprint, &r.CardBIN, &r.PaymentMethod} {
		*s = x.string()
	}
	if x.err != nil || len(x.src) != 1 || x.src[0] > 1 {
		return errShort
	}
	r.Declined = x.src[0] == 1
	return nil
}

// DecodeRekeyed decodes a value of one of the topics. The strings of r are the value's own bytes if it was written with our schema.
func (c *Codecs) DecodeRekeyed(ctx context.Context, topic string, value []byte, r *event.Rekeyed) error {
	id, err := IDOf(value)
	if err != nil {
		return err
	}
	if id != c.subjects[topic].id {
		*r = event.Rekeyed{}
		return c.decodeForeign(ctx, topic, id, value[headerBytes:], r)
	}
	if err := DecodeRekeyedBody(value[headerBytes:], r); err != nil {
		return fault.Newf("MR-EVT-002", "decoding a value of %s: %w", topic, err)
	}
	return nil
}
