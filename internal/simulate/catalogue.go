package simulate

import (
	"fmt"

	"millrace/event"
)

// Currencies of the shop, with the worth of one US dollar and the smallest coin, both in micros.
var currencies = [...]struct {
	code       string
	rate, coin int64
}{
	{"USD", 1_000_000, 10_000},
	{"EUR", 920_000, 10_000},
	{"GBP", 790_000, 10_000},
	{"JPY", 150_000_000, event.MicrosPerUnit}, // no decimals
	{"BRL", 5_400_000, 10_000},
}

// product is one thing for sale.
type product struct {
	id, path string
	category uint8
	fields   []byte                 // "item_id":…,"item_name":…,"item_category":…,"item_brand":…,"item_variant":…
	price    [len(currencies)]int64 // micros
}

// Words of which products are made; a category has its own nouns and brands.
var departments = [...]struct {
	name, list      string
	from, to        int64 // price in US cents
	nouns, brands   []string
	adjectives      []string
	productsInStock int
}{
	{"Kitchen", "kitchen", 890, 24900, []string{"Mug", "Kettle", "Skillet", "Chef's Knife", "Cutting Board", "Teapot"}, []string{"Hearthside", "Nordhaus", "Café Lumière"}, []string{"Stoneware", "Cast Iron", "Walnut", "Enamel", "Copper"}, 90},
	{"Apparel", "apparel", 1500, 18900, []string{"T-Shirt", "Hoodie", "Rain Jacket", "Chinos", "Wool Socks"}, []string{"Fjordline", "Common Thread", "Ateliê Sol"}, []string{"Organic", "Relaxed", "Merino", "Everyday", "Recycled"}, 120},
	{"Electronics", "electronics", 1900, 149900, []string{"Headphones", "Speaker", "27\" Monitor", "Keyboard", "Webcam"}, []string{"Auralis", "Voltkind", "音楽堂"}, []string{"Wireless", "Studio", "Compact", "Pro"}, 80},
	{"Beauty", "beauty", 600, 9900, []string{"Face Cream", "Shampoo", "Lip Balm", "Hand Soap"}, []string{"Aurum & Rose", "Plain Jar"}, []string{"Sensitive", "Citrus", "Unscented", "Night"}, 60},
	{"Sports", "sports", 900, 59900, []string{"Yoga Mat", "Dumbbell", "Running Shoes", "Water Bottle"}, []string{"Ridgeway", "Pulse"}, []string{"Trail", "Grip", "Light", "Training"}, 60},
	{"Books", "books", 700, 4900, []string{"Novel", "Cookbook", "Atlas", "Sketchbook"}, []string{"Lantern Press", "Quire"}, []string{"Illustrated", "Pocket", "Collector's"}, 50},
	{"Toys", "toys", 500, 12900, []string{"Wooden Train", "Puzzle", "Building Set", "Plush Bear"}, []string{"Little Mill", "Klotz"}, []string{"Giant", "Classic", "Musical"}, 40},
	{"Garden", "garden", 1200, 39900, []string{"Planter", "Pruning Shears", "Hose Reel", "Bird Feeder"}, []string{"Greenacre", "Terra Cotta & Co"}, []string{"Glazed", "Solar", "Hanging"}, 40},
}

var variants = [...]string{"black", "white", "navy", "forest", "sand", "S", "M", "L", "XL"}

// newCatalogue makes the shop's products. They depend on the seed alone, and the first ones of the list sell best.
func newCatalogue(seed uint64) []product {
	r := random{hash2(seed, 0xca7a)}
	var all []product
	for d := range departments {
		dep := &departments[d]
		for range dep.productsInStock {
			n := len(all) + 1
			p := product{id: fmt.Sprintf("sku-%04d", n), category: uint8(d)}
			p.path = "/p/" + p.id
			name := dep.adjectives[r.n(len(dep.adjectives))] + " " + dep.nouns[r.n(len(dep.nouns))]
			p.fields = append(p.fields, `"item_id":"`...)
			p.fields = append(append(p.fields, p.id...), '"')
			p.fields = appendQuoted(appendKey(p.fields, "item_name"), name)
			p.fields = appendQuoted(appendKey(p.fields, "item_category"), dep.name)
			p.fields = appendQuoted(appendKey(p.fields, "item_brand"), dep.brands[r.n(len(dep.brands))])
			p.fields = appendQuoted(appendKey(p.fields, "item_variant"), variants[r.n(len(variants))])
			cents := int64(r.between(float64(dep.from), float64(dep.to)))
			for c, cur := range currencies {
				p.price[c] = max(cents*cur.rate/100/cur.coin, 1) * cur.coin
			}
			all = append(all, p)
		}
	}
	for i := len(all) - 1; i > 0; i-- { // so that every department has best sellers
		j := r.n(i + 1)
		all[i], all[j] = all[j], all[i]
	}
	return all
}

// promotions on the shop's pages.
var promotions = [...]struct{ id, name, creative, slot string }{
	{"summer-sale", "Summer Sale", "hero_beach", "home_hero"},
	{"free-shipping", "Free Shipping Week", "banner_truck", "top_bar"},
	{"new-arrivals", "New Arrivals", "grid_new", "home_grid_2"},
}

// searchTerms that shoppers type; some hold what a careless encoder breaks at.
var searchTerms = [...]string{
	"mug", "wireless headphones", "gift for dad", "27\" monitor", "café", "rain jacket size m", "トレッキング", "yoga mat 6mm", "C++ primer", "knife & board", "pão de queijo maker", "back\\slash",
	"50% off", "kettle\telectric", "emoji 🎁",
}

var coupons = [...]string{"WELCOME10", "SUMMER", "FRIENDS20"}
