package hot

import (
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"millrace/event"
	"millrace/event/schema"
	"millrace/streaming"
)

// ProductsConfig is what is done for each product: its stock, its demand, when somebody is told.
type ProductsConfig struct {
	LeadTime time.Duration `koanf:"lead_time" desc:"how long a delivery to the shop takes: low stock is what may not last that long"`
	Risk     float64       `koanf:"risk" desc:"probability of selling out within lead_time from which on the stock is low"`
}

// DefaultProductsConfig suits a shop that is delivered to within three days.
func DefaultProductsConfig() ProductsConfig {
	return ProductsConfig{LeadTime: 72 * time.Hour, Risk: 0.2}
}

// Validate reports every problem.
func (c ProductsConfig) Validate() error {
	var errs []error
	if c.LeadTime < time.Hour || c.LeadTime > 60*24*time.Hour {
		errs = append(errs, fmt.Errorf("lead_time: %s is not between 1h and 1440h", c.LeadTime))
	}
	if !(c.Risk >= 0.001 && c.Risk <= 0.999) {
		errs = append(errs, fmt.Errorf("risk: %g is not between 0.001 and 0.999", c.Risk))
	}
	return errors.Join(errs...)
}

// productChanges sends what is about a product to the task of that product: lines of orders, which are with their visitor, and changes of stock.
type productChanges struct {
	noJob
	t      *streaming.Task
	codecs *schema.Codecs
	change event.ProductChange
}

func newProductChanges(t *streaming.Task, codecs *schema.Codecs) *productChanges {
	return &productChanges{t: t, codecs: codecs}
}

// maxItemID is the longest item id that jobs keep.
const maxItemID = 128

func (p *productChanges) event(e *event.Event, _ *kgo.Record) error {
	at := min(e.OccurredAt, e.IngestedAt) // a clock that is ahead must not end the hours of all products
	switch e.Name {
	case event.NamePurchase:
		for i := range e.Items {
			if it := &e.Items[i]; it.ItemID != "" && len(it.ItemID) <= maxItemID && it.Quantity > 0 {
				p.change = event.ProductChange{Tenant: e.Tenant, ItemID: it.ItemID, Kind: event.ProductSale, EventID: e.ID, OccurredAt: at, Quantity: it.Quantity}
				if err := p.send(); err != nil {
					return err
				}
			}
		}
	case event.NameInventoryChange:
		if e.ItemID != "" && len(e.ItemID) <= maxItemID && (e.StockLevel != nil || e.QuantityDelta != nil) {
			p.change = event.ProductChange{Tenant: e.Tenant, ItemID: e.ItemID, Kind: event.ProductStock, EventID: e.ID, OccurredAt: at, WarehouseID: e.WarehouseID, Delta: e.QuantityDelta, Level: e.StockLevel}
			return p.send()
		}
	}
	return nil
}

func (p *productChanges) send() error {
	value, err := p.codecs.Append(p.t.Buf(128+len(p.change.ItemID)), event.TopicRekeyProduct, &p.change)
	if err != nil {
		return err
	}
	out := p.t.Record()
	out.Topic, out.Value = event.TopicRekeyProduct, p.t.Keep(value)
	out.Key = p.t.Keep(p.change.AppendKey(p.t.Buf(len(p.change.Tenant) + len(p.change.ItemID) + 3)))
	p.t.EmitTo(event.Partition(out.Key, p.t.Partitions()), out)
	return nil
}

// prefixed puts the section before what is wrong in it.
func prefixed(section string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", section, err)
}
