package hot

import (
	"millrace/event"
	"millrace/event/schema"
	"millrace/streaming"
)

// liveOut writes what jobs keep in Redis, on live.updates.
type liveOut struct {
	t      *streaming.Task
	codecs *schema.Codecs
	u      event.LiveUpdate
}

func newLiveOut(t *streaming.Task, codecs *schema.Codecs) *liveOut {
	return &liveOut{t: t, codecs: codecs}
}

// put writes one field. value may be reused after the call.
func (o *liveOut) put(tenant, key, field string, value []byte, expiresAt int64) error {
	o.u = event.LiveUpdate{Tenant: tenant, Key: key, Field: field, Value: value, ExpiresAt: expiresAt}
	b := o.codecs.AppendLiveUpdate(o.t.Buf(64+len(key)+len(field)+len(value)), &o.u)
	out := o.t.Record()
	out.Topic, out.Value = event.TopicLiveUpdates, o.t.Keep(b)
	out.Key = o.t.Keep(o.u.AppendKey(o.t.Buf(len(key) + len(field) + 1)))
	o.t.Emit(out)
	return nil
}
