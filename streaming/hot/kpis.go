package hot

import (
	"unique"

	"github.com/twmb/franz-go/pkg/kgo"

	"millrace/event"
	"millrace/event/schema"
	"millrace/kpi"
	"millrace/streaming"
)

type (
	shopKey  = unique.Handle[kpi.ShopKey]
	itemsKey = unique.Handle[kpi.ItemsKey]
)

// kpis counts live events in the windows of both families and emits partial results: the contribution of this partition to each row, each time the whole of it.
type kpis struct {
	t      *streaming.Task
	codecs *schema.Codecs
	grains []kpi.Grain

	shop      *streaming.Windows[shopKey, *kpi.Values]
	items     *streaming.Windows[itemsKey, *kpi.Values]
	shopKeys  interner[kpi.ShopKey]
	itemsKeys interner[kpi.ItemsKey]
	rows      map[itemsKey]struct{} // that the event in hand has been counted in
	partial   event.KPIPartial
	lateEvent event.KPILate
}

func newKPIs(t *streaming.Task, cfg Config, codecs *schema.Codecs, defs kpi.Definitions) *kpis {
	k := &kpis{
		t: t, codecs: codecs, grains: kpi.Grains(), shopKeys: newInterner[kpi.ShopKey](), itemsKeys: newInterner[kpi.ItemsKey](), rows: map[itemsKey]struct{}{},
	}
	days := defs.Days()
	k.shop = streaming.OpenWindows(t, streaming.WindowsSpec[shopKey, *kpi.Values]{
		Store: storeShop, Lateness: cfg.KPILateness, EmitEvery: cfg.KPIEvery, Values: valuesCodec{}, Emit: k.emitShop,
		Keys:   keyCodec[kpi.ShopKey]{kpi.ShopKey.Append, kpi.DecodeShopKey},
		Grains: grainsOf(k.grains, days, func(h shopKey) string { return h.Value().Tenant }),
	})
	k.items = streaming.OpenWindows(t, streaming.WindowsSpec[itemsKey, *kpi.Values]{
		Store: storeItems, Lateness: cfg.KPILateness, EmitEvery: cfg.KPIEvery, Values: valuesCodec{}, Emit: k.emitItems,
		Keys:   keyCodec[kpi.ItemsKey]{kpi.ItemsKey.Append, kpi.DecodeItemsKey},
		Grains: grainsOf(k.grains, days, func(h itemsKey) string { return h.Value().Tenant }),
	})
	return k
}

func grainsOf[K comparable](grains []kpi.Grain, days *kpi.Days, tenant func(K) string) []streaming.Grain[K] {
	var out []streaming.Grain[K]
	for _, g := range grains {
		if g.Size > 0 {
			out = append(out, streaming.Fixed[K](g.Name, g.From, g.Size))
			continue
		}
		out = append(out, streaming.Grain[K]{Name: g.Name, From: g.From, Window: func(key K, at int64) (int64, int64) { return days.Of(tenant(key), at) }})
	}
	return out
}

// add counts an event; inTime is false if it came after the lateness of its windows, in which case it is counted nowhere.
func (k *kpis) add(e *event.Event) (inTime bool, err error) {
	v, outcome := k.shop.At(k.shopKeys.handle(kpi.ShopKeyOf(e)), e.OccurredAt)
	if outcome == streaming.Dropped {
		return false, nil
	}
	(*v).AddShop(e)
	if len(e.Items) == 0 || !kpi.HasLines(e.Name) {
		return true, nil
	}
	// Windows of both families have the same ends, so what is in time for one is so for the other.
	several := len(e.Items) > 1
	for i := range e.Items {
		item := &e.Items[i]
		key := kpi.ItemsKey{Tenant: e.Tenant, Currency: e.Currency, ProductID: item.ItemID, ItemCategory: item.ItemCategory}
		if key.ProductID != "" {
			k.addLine(e, i, key, several)
			key.ProductID = ""
		}
		k.addLine(e, i, key, several)
	}
	if several {
		clear(k.rows)
	}
	return true, nil
}

func (k *kpis) addLine(e *event.Event, i int, key kpi.ItemsKey, several bool) {
	h, first := k.itemsKeys.handle(key), true
	if several {
		if _, seen := k.rows[h]; seen {
			first = false
		} else {
			k.rows[h] = struct{}{}
		}
	}
	if v, outcome := k.items.At(h, e.OccurredAt); outcome != streaming.Dropped {
		(*v).AddLine(e, i, first)
	}
}

// late names an event that no KPI counts until it is recomputed.
func (k *kpis) late(e *event.Event, r *kgo.Record) error {
	k.lateEvent = event.KPILate{
		Tenant: e.Tenant, EventID: e.ID, Source: e.Source, Name: e.Name, OccurredAt: e.OccurredAt, IngestedAt: e.IngestedAt, Watermark: k.t.Watermark(),
		RawTopic: e.RawTopic, RawPartition: e.RawPartition, RawOffset: e.RawOffset,
	}
	value, err := k.codecs.Append(k.t.Buf(256), event.TopicKPILate, &k.lateEvent)
	if err != nil {
		return err
	}
	out := k.t.Record()
	out.Topic, out.Key, out.Value = event.TopicKPILate, r.Key, k.t.Keep(value)
	k.t.Emit(out)
	return nil
}

func (k *kpis) emitShop(w streaming.Window[shopKey], v *kpi.Values) error {
	key := w.Key.Value()
	k.begin(kpi.Shop, w.Grain, w.Start, w.Closed, key.Tenant, key.Currency)
	k.partial.Country, k.partial.Device = key.Country, key.Device
	return k.emit(v)
}

func (k *kpis) emitItems(w streaming.Window[itemsKey], v *kpi.Values) error {
	key := w.Key.Value()
	k.begin(kpi.Items, w.Grain, w.Start, w.Closed, key.Tenant, key.Currency)
	k.partial.ProductID, k.partial.ItemCategory = key.ProductID, key.ItemCategory
	return k.emit(v)
}

func (k *kpis) begin(f kpi.Family, grain int, start int64, final bool, tenant, currency string) {
	k.partial = event.KPIPartial{
		Family: f.String(), Grain: k.grains[grain].Name, Tenant: tenant, WindowStart: start, Currency: currency, KafkaPartition: k.t.Partition(), Final: final,
		VisitorsSketch: k.partial.VisitorsSketch[:0],
	}
}

func (k *kpis) emit(v *kpi.Values) error {
	if err := v.Fill(&k.partial); err != nil {
		return err
	}
	value, err := k.codecs.Append(k.t.Buf(192+len(k.partial.VisitorsSketch)), event.TopicKPIPartial, &k.partial)
	if err != nil {
		return err
	}
	out := k.t.Record()
	out.Topic, out.Value = event.TopicKPIPartial, k.t.Keep(value)
	out.Key = k.t.Keep(kpi.AppendRecordKey(k.t.Buf(128), &k.partial))
	k.t.Emit(out)
	return nil
}

// valuesCodec is how the engine makes, adds and stores values.
type valuesCodec struct{}

// New implements streaming.Accumulator.
func (valuesCodec) New() *kpi.Values { return &kpi.Values{} }

// Clone implements streaming.Accumulator.
func (valuesCodec) Clone(v *kpi.Values) *kpi.Values { return v.Clone() }

// Merge implements streaming.Accumulator.
func (valuesCodec) Merge(into **kpi.Values, delta *kpi.Values) {
	if err := (*into).Merge(delta); err != nil {
		panic(err) // sketches of one precision can be merged
	}
}

// Append implements streaming.Codec.
func (valuesCodec) Append(dst []byte, v *kpi.Values) []byte { return v.Append(dst) }

// Decode implements streaming.Codec.
func (valuesCodec) Decode(src []byte) (*kpi.Values, error) { return kpi.DecodeValues(src) }

var _ streaming.Accumulator[*kpi.Values] = valuesCodec{}
