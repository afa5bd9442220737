package wire

import (
	"strconv"

	"github.com/go-faster/jx"

	"millrace/event"
)

// finish deals with what could not be decided member by member: fields of the category, money, properties, times.
func (d *Decoder) finish() error {
	e := d.t.e
	top := native.top
	if !d.named {
		return d.wrong(event.ReasonSchema, top, top.fields["name"], "the name is missing")
	}
	for _, a := range d.deferred {
		if !a.f.in(d.cat) {
			if err := d.keep(top, a.f.name, a.raw); err != nil {
				return err
			}
			continue
		}
		d.inner.ResetBytes(a.raw)
		if err := d.value(top, a.f, &d.inner); err != nil {
			return err
		}
	}
	if err := d.money(); err != nil {
		return err
	}
	if err := d.properties(); err != nil {
		return err
	}
	e.Tenant, e.Source = d.src.Tenant, d.src.Name
	if d.t.suffix != "" {
		e.Source += "/" + d.t.suffix
	}
	if e.SchemaVersion == 0 {
		e.SchemaVersion = 1
	}
	d.fromURL()
	if e.DeviceType == "" && e.UserAgent != "" {
		e.DeviceType = d.device(e.UserAgent)
	}
	if d.t.ip != "" {
		d.setIP(d.t.ip)
	}
	return nil
}

// money holds the rules of amounts: negative for refunds only, whose amounts are negative whatever was sent; and never without a currency.
func (d *Decoder) money() error {
	e := d.t.e
	refund := e.Name == event.NameRefund
	for _, one := range [...]struct {
		name string
		v    *int64
	}{{"value", e.Value}, {"tax", e.Tax}, {"shipping", e.Shipping}, {"discount", e.Discount}, {"total", e.Total}} { // the last two are not negative: see sum
		if one.v == nil {
			continue
		}
		if refund {
			*one.v = -max(*one.v, -*one.v)
		} else if *one.v < 0 {
			return d.wrong(event.ReasonBadAmount, native.top, native.top.fields[one.name], "only a refund may be negative")
		}
	}
	for i := range e.Items {
		it := &e.Items[i]
		for _, one := range [...]struct {
			name string
			v    *int64
		}{{"price", it.Price}, {"discount", it.Discount}} {
			if one.v == nil || *one.v >= 0 {
				continue
			}
			if !refund {
				d.item = i
				return d.wrong(event.ReasonBadAmount, native.item, native.item.fields[one.name], "only a refund may be negative")
			}
			*one.v = -*one.v // the price of a unit is positive; the event's name says that it went back
		}
	}
	if e.Currency == "" && e.Value != nil && *e.Value != 0 {
		return d.wrong(event.ReasonSchema, native.top, native.top.fields["currency"], "an amount needs a currency")
	}
	return nil
}

// properties puts together what was sent as properties and what has no field: a member "context.page.foo" is kept under that name. A name that is taken gets
// "#2", "#3" and so on.
func (d *Decoder) properties() error {
	if d.props != nil {
		maskCardsJSON(d.props)
	}
	if len(d.extra) == 0 {
		if d.props == nil {
			return nil
		}
		if i := skipSpace(d.props, 1); d.props[i] == '}' { // {}
			return nil
		}
		d.t.e.Properties = view(d.props)
		return nil
	}
	clear(d.keys)
	b := append(d.buf[:0], '{')
	if d.props != nil {
		d.inner.ResetBytes(d.props)
		err := d.inner.ObjBytes(func(j *jx.Decoder, key []byte) error {
			d.keys[string(key)] = 1
			return j.Skip()
		})
		if err != nil {
			return err
		}
		if inner := d.props[1 : len(d.props)-1]; skipSpace(inner, 0) < len(inner) {
			b = append(append(b, inner...), ',')
		}
	}
	w := jx.Writer{Buf: b}
	for i, a := range d.extra {
		if i > 0 {
			w.RawStr(",")
		}
		key := a.key
		for d.keys[key] > 0 {
			d.keys[a.key]++
			key = a.key + "#" + strconv.Itoa(d.keys[a.key])
		}
		d.keys[key]++
		w.Str(key)
		w.RawStr(":")
		w.Raw(a.raw)
	}
	w.RawStr("}")
	d.buf = w.Buf
	d.t.e.Properties = view(w.Buf)
	return nil
}
