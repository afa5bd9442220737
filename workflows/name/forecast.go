package name

import (
	"errors"
	"fmt"
	"time"
)

// ForecastDemand fits the demand of each product.
const ForecastDemand = "ForecastDemand"

// Activities of ForecastDemand.
const (
	ForecastPlan    = "forecast.plan"    // which snapshot is read
	ForecastFit     = "forecast.fit"     // reads the orders, fits and measures each product, writes the results to files
	ForecastPublish = "forecast.publish" // tables, and the models to the stream
	ForecastDrop    = "forecast.drop"    // removes the files
)

// Steps of ForecastDemand, in their order.
const (
	StepFit              = "fit"
	StepPublishForecasts = "publish"
)

// Failures of ForecastDemand.
const (
	TooManyProducts = "TooManyProducts" // the orders name more products than any shop has
	ForecastLost    = "ForecastLost"    // the files of the fit are not there
)

// ForecastID is the workflow id of ForecastDemand of a tenant.
func ForecastID(tenant string) string { return "forecast/" + tenant }

// ForecastDemandInput is the input of ForecastDemand. Everything has a default.
type ForecastDemandInput struct {
	Tenant string `json:"tenant,omitempty"` // whose orders; absent: default
	Ref    string `json:"ref,omitempty"`    // of the table events_purchase; absent: published
	// LookBack is how far back orders count, from the newest snapshot; absent: 56d.
	LookBack Duration `json:"look_back,omitempty"`
	// MaxProducts are forecast, those of which most is sold; absent: 20000.
	MaxProducts int `json:"max_products,omitempty"`
	// CostShare is what a product costs the shop, as a share of its last price; absent: not known, and no price below those that were asked is proposed.
	CostShare float64 `json:"cost_share,omitempty"`
	// MaxPriceStep is the share by which a proposed price may differ from the last one; absent: 0.1.
	MaxPriceStep float64 `json:"max_price_step,omitempty"`
	// Currency is that of the prices that are looked at; absent: the one of most orders of a product.
	Currency string `json:"currency,omitempty"`
	// Run names the logical run; absent: a run of its own.
	Run string `json:"run,omitempty"`
}

// WithDefaults fills in what is absent.
func (in ForecastDemandInput) WithDefaults() ForecastDemandInput {
	if in.Tenant == "" {
		in.Tenant = "default"
	}
	if in.Ref == "" {
		in.Ref = "published"
	}
	if in.LookBack == 0 {
		in.LookBack = Duration(56 * day)
	}
	if in.MaxProducts == 0 {
		in.MaxProducts = 20_000
	}
	if in.MaxPriceStep == 0 {
		in.MaxPriceStep = 0.1
	}
	return in
}

// Validate implements Input.
func (in ForecastDemandInput) Validate() error {
	in = in.WithDefaults()
	var errs []error
	bad := func(wrong bool, format string, a ...any) {
		if wrong {
			errs = append(errs, fmt.Errorf(format, a...))
		}
	}
	bad(!tenantForm.MatchString(in.Tenant), "tenant: %.70q is not 1 to 64 characters without braces, | and control characters", in.Tenant)
	bad(len(in.Ref) > 128, "ref: has more than 128 bytes")
	bad(time.Duration(in.LookBack) < 20*day || time.Duration(in.LookBack) > 400*day, "look_back: %s is not between 20d and 400d", in.LookBack)
	bad(in.MaxProducts < 1 || in.MaxProducts > 200_000, "max_products: %d is not between 1 and 200000", in.MaxProducts)
	bad(!(in.CostShare >= 0 && in.CostShare <= 0.99), "cost_share: %g is not between 0 and 0.99", in.CostShare)
	bad(!(in.MaxPriceStep >= 0.001 && in.MaxPriceStep <= 0.5), "max_price_step: %g is not between 0.001 and 0.5", in.MaxPriceStep)
	bad(in.Currency != "" && len(in.Currency) != 3, "currency: %.20q is no code of three letters", in.Currency)
	if err := ValidRun(in.Run); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// ForecastDemandResult is what ForecastDemand gives.
type ForecastDemandResult struct {
	Tenant   string             `json:"tenant"`
	Version  string             `json:"version"`
	Products int                `json:"products"` // sold in the time that was looked at
	Fitted   int                `json:"fitted"`   // the others have too short a history
	Metrics  map[string]float64 `json:"metrics"`
	Rows     int64              `json:"rows"`
	Steps    []StepResult       `json:"steps"`
}

func forecastTypes() []Type {
	forecast := Type{
		Name:    ForecastDemand,
		Doc:     "fit what is sold of each product by the hour from published orders, measure it on held-back weeks, hand the forecasts to the stream",
		Example: `{"tenant": "default", "look_back": "56d"}`,
		Target: func(text []byte) (Target, error) {
			in, err := Decode[ForecastDemandInput](text)
			return Target{ID: ForecastID(in.WithDefaults().Tenant), Input: in}, err
		},
	}
	return []Type{forecast, TickOf(forecast)}
}
