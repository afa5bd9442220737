package live

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/redis/go-redis/v9"

	"millrace/event"
)

// Product is what Redis knows of a product: the stream writes it (package hot, inventory_product.go).
type Product struct {
	Known    bool // there was a sale or a change of stock in the last months
	State    event.ProductLive
	Forecast string // JSON: version and model; "" if there is none
}

// ReadProducts reads products in one round trip, in their order.
func ReadProducts(ctx context.Context, rdb redis.UniversalClient, tenant string, products []string) ([]Product, error) {
	keys := make([]string, len(products))
	for i, p := range products {
		keys[i] = event.ProductLiveKey(tenant, p)
	}
	all, err := ManyFields(ctx, rdb, keys)
	if err != nil {
		return nil, fmt.Errorf("reading what is known of products: %w", err)
	}
	out := make([]Product, len(products))
	for i, fields := range all {
		text, ok := fields[event.ProductLiveStock]
		if !ok {
			continue
		}
		out[i].Known, out[i].Forecast = true, fields[event.ProductLiveForecast]
		if err := json.Unmarshal([]byte(text), &out[i].State); err != nil {
			return nil, fmt.Errorf("stock of product %s: %w", products[i], err)
		}
	}
	return out, nil
}
