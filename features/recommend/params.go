package recommend

import (
	"errors"
	"fmt"
	"time"
)

// Kind is what a visitor did with an item.
type Kind uint8

// The kinds of interaction.
const (
	View Kind = iota
	Cart
	Purchase
	kinds
)

// Params is how a model is trained. See DefaultParams.
type Params struct {
	Weights         [3]float64    `json:"weights"`          // of a view, an addition to the cart, a purchase
	HalfLife        time.Duration `json:"half_life"`        // after which an interaction counts half
	Shrinkage       float64       `json:"shrinkage"`        // λ, in baskets
	MinSupport      int           `json:"min_support"`      // baskets that must hold both items: fewer say nothing, and might say something about somebody
	Neighbours      int           `json:"neighbours"`       // kept for an item
	MaxBasket       int           `json:"max_basket"`       // items of a basket that count: the strongest
	MaxItems        int           `json:"max_items"`        // of the model: those in most baskets
	MaxInteractions int           `json:"max_interactions"` // beyond which baskets are left out
	Top             int           `json:"top"`              // items in the lists that are measured, and in the list of popular items
	HoldOut         float64       `json:"hold_out"`         // share of the interactions, the last by time, that the model is measured on
	MinTest         int           `json:"min_test"`         // baskets that the measurement needs at least
}

// DefaultParams suit a shop of up to 100,000 items.
func DefaultParams() Params {
	return Params{
		Weights: [3]float64{1, 3, 5}, HalfLife: 30 * 24 * time.Hour, Shrinkage: 10, MinSupport: 3, Neighbours: 50, MaxBasket: 100,
		MaxItems: 100_000, MaxInteractions: 10_000_000, Top: 20, HoldOut: 0.2, MinTest: 50,
	}
}

// Validate reports every problem.
func (p Params) Validate() error {
	var errs []error
	bad := func(wrong bool, format string, a ...any) {
		if wrong {
			errs = append(errs, fmt.Errorf(format, a...))
		}
	}
	for i, w := range p.Weights {
		bad(!(w >= 0 && w <= 1000), "weights[%d]: %g is not between 0 and 1000", i, w)
	}
	bad(p.Weights == [3]float64{}, "weights: at least one must be above 0")
	bad(p.HalfLife < time.Hour, "half_life: %s is below 1h", p.HalfLife)
	bad(!(p.Shrinkage >= 0 && p.Shrinkage <= 1e6), "shrinkage: %g is not between 0 and 1,000,000", p.Shrinkage)
	bad(p.MinSupport < 1, "min_support: %d is below 1", p.MinSupport)
	bad(p.Neighbours < 1 || p.Neighbours > 500, "neighbours: %d is not between 1 and 500", p.Neighbours)
	bad(p.MaxBasket < 2 || p.MaxBasket > 10_000, "max_basket: %d is not between 2 and 10,000", p.MaxBasket)
	bad(p.MaxItems < 2 || p.MaxItems > 1_000_000, "max_items: %d is not between 2 and 1,000,000", p.MaxItems)
	bad(p.MaxInteractions < 100 || p.MaxInteractions > 200_000_000, "max_interactions: %d is not between 100 and 200,000,000", p.MaxInteractions)
	bad(p.Top < 1 || p.Top > 100, "top: %d is not between 1 and 100", p.Top)
	bad(!(p.HoldOut > 0 && p.HoldOut < 1), "hold_out: %g is not between 0 and 1", p.HoldOut)
	bad(p.MinTest < 1, "min_test: %d is below 1", p.MinTest)
	return errors.Join(errs...)
}
