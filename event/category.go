package event

// Category groups event names: one category is one topic and one table.
type Category uint8

// The categories. Their numbers are internal; their names are a promise.
const (
	Page     Category = iota // views, search, promotions
	Cart                     // cart, wishlist and checkout steps
	Purchase                 // purchase, refund
	Inventory
	Exposure
	Identity
	Custom // any other well-formed name
	numCategories
)

var categoryNames = [numCategories]string{"page", "cart", "purchase", "inventory", "exposure", "identity", "custom"}

// Categories lists all categories.
func Categories() []Category {
	return []Category{Page, Cart, Purchase, Inventory, Exposure, Identity, Custom}
}

// String is the category's name, as in topics and tables.
func (c Category) String() string {
	if c < numCategories {
		return categoryNames[c]
	}
	return "invalid"
}

// ParseCategory finds a category by its name.
func ParseCategory(s string) (Category, bool) {
	for i, n := range categoryNames {
		if n == s {
			return Category(i), true
		}
	}
	return 0, false
}

// Names made of a category's, made once: hot code asks for them for every event.
var (
	tableNames  = prefixed("events_")
	rawTopics   = prefixed("raw.")
	eventTopics = prefixed("events.")
)

func prefixed(prefix string) (out [numCategories]string) {
	for i, n := range categoryNames {
		out[i] = prefix + n
	}
	return out
}

// Table is the category's table in every store: events_page, …
func (c Category) Table() string { return tableNames[c] }

// RawTopic is where the gateway writes the category's events.
func (c Category) RawTopic() string { return rawTopics[c] }

// EventsTopic is where the hot topology writes the category's cleaned events.
func (c Category) EventsTopic() string { return eventTopics[c] }

// The typed names: GA4's e-commerce events and our own.
const (
	NamePageView           = "page_view"
	NameScreenView         = "screen_view"
	NameViewItem           = "view_item"
	NameViewItemList       = "view_item_list"
	NameSelectItem         = "select_item"
	NameViewPromotion      = "view_promotion"
	NameSelectPromotion    = "select_promotion"
	NameSearch             = "search"
	NameAddToCart          = "add_to_cart"
	NameRemoveFromCart     = "remove_from_cart"
	NameViewCart           = "view_cart"
	NameAddToWishlist      = "add_to_wishlist"
	NameBeginCheckout      = "begin_checkout"
	NameAddShippingInfo    = "add_shipping_info"
	NameAddPaymentInfo     = "add_payment_info"
	NamePurchase           = "purchase"
	NameRefund             = "refund"
	NameInventoryChange    = "inventory_change"
	NameExperimentExposure = "experiment_exposure"
	NameIdentify           = "identify"
)

// CategoryOf is the category of an event name; names that are not typed are Custom.
func CategoryOf(name string) Category {
	switch name {
	case NamePageView, NameScreenView, NameViewItem, NameViewItemList, NameSelectItem, NameViewPromotion, NameSelectPromotion, NameSearch:
		return Page
	case NameAddToCart, NameRemoveFromCart, NameViewCart, NameAddToWishlist, NameBeginCheckout, NameAddShippingInfo, NameAddPaymentInfo:
		return Cart
	case NamePurchase, NameRefund:
		return Purchase
	case NameInventoryChange:
		return Inventory
	case NameExperimentExposure:
		return Exposure
	case NameIdentify:
		return Identity
	}
	return Custom
}

// MaxNameBytes bounds an event name.
const MaxNameBytes = 100

// WellFormedName says whether name can be an event name: 1 to MaxNameBytes bytes of letters, digits, '_', '-', '.', ':', '/', '$'
// and single inner spaces, beginning with a letter, '$' or '_'. SDKs send such names ("Product Viewed", "$pageview").
func WellFormedName(name string) bool {
	if name == "" || len(name) > MaxNameBytes {
		return false
	}
	for i := range len(name) {
		c := name[i]
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_' || c == '$'
		switch {
		case letter:
		case i == 0:
			return false
		case c >= '0' && c <= '9' || c == '-' || c == '.' || c == ':' || c == '/':
		case c == ' ' && name[i-1] != ' ' && i != len(name)-1:
		default:
			return false
		}
	}
	return true
}
