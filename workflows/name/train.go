package name

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"time"
)

// Activities of TrainRecommendations.
const (
	TrainPlan    = "train.plan"    // which snapshots are read
	TrainModel   = "train.model"   // reads the events, measures and fits the model, writes it to a file
	TrainPublish = "train.publish" // writes the model to Redis and swaps the version that is served
	TrainDrop    = "train.drop"    // removes the files
)

// Steps of TrainRecommendations, in their order.
const (
	StepTrain        = "train"
	StepPublishModel = "publish"
)

// Failures of TrainRecommendations.
const (
	NotPublished = "NotPublished" // a table has no ref published: PublishTable comes first
	TooManyItems = "TooManyItems" // the events name more items than any shop has
	ModelLost    = "ModelLost"    // the file of the trained model is not there
)

// When a trained model is published.
const (
	PublishBetter = "better" // than the most popular items for everybody
	PublishAlways = "always"
	PublishNever  = "never" // it is measured only
)

// Baskets.
const (
	BasketVisitor = "visitor" // all that a visitor did
	BasketSession = "session" // what one session did; a visitor without sessions is one basket
)

// DefaultModel is the model that the night trains.
const DefaultModel = "similar-items"

// TrainID is the workflow id of TrainRecommendations of a model.
func TrainID(model string) string { return "train/" + model }

// TrainRecommendationsInput is the input of TrainRecommendations. Everything has a default.
type TrainRecommendationsInput struct {
	Model  string `json:"model,omitempty"`  // absent: similar-items
	Tenant string `json:"tenant,omitempty"` // whose events; absent: default
	Ref    string `json:"ref,omitempty"`    // of the tables events_page, events_cart and events_purchase; absent: published
	// LookBack is how far back events count, from the newest snapshot; absent: 90d.
	LookBack Duration `json:"look_back,omitempty"`
	// Basket is what items are together in: visitor or session; absent: visitor.
	Basket string `json:"basket,omitempty"`
	// Weights are what a view, an addition to the cart and a purchase count; absent: 1, 3, 5.
	Weights []float64 `json:"weights,omitempty"`
	// HalfLife is after which time they count half; absent: 30d.
	HalfLife Duration `json:"half_life,omitempty"`
	// Neighbours are kept for an item; absent: 50.
	Neighbours int `json:"neighbours,omitempty"`
	// MinSupport is how many baskets must hold two items for them to be similar; absent: 3.
	MinSupport int `json:"min_support,omitempty"`
	// MinTest is how many baskets the measurement needs; absent: 50.
	MinTest int `json:"min_test,omitempty"`
	// Publish is better (than popularity, the default), always or never.
	Publish string `json:"publish,omitempty"`
	// Keep is how many versions before the one that is served stay for a rollback; absent: 3.
	Keep int `json:"keep,omitempty"`
	// Run names the logical run; absent: a run of its own.
	Run string `json:"run,omitempty"`
}

var (
	modelForm  = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)
	tenantForm = regexp.MustCompile(`^[^{}|\x00-\x1f\x7f]{1,64}$`)
)

// ValidModel says what is wrong with the name of a model.
func ValidModel(model string) error {
	if !modelForm.MatchString(model) {
		return fmt.Errorf("model: %.70q is no name of a model: lower-case letters, digits and -, at most 63", model)
	}
	return nil
}

// WithDefaults fills in what is absent.
func (in TrainRecommendationsInput) WithDefaults() TrainRecommendationsInput {
	text := func(s *string, v string) {
		if *s == "" {
			*s = v
		}
	}
	number := func(n *int, v int) {
		if *n == 0 {
			*n = v
		}
	}
	text(&in.Model, DefaultModel)
	text(&in.Tenant, "default")
	text(&in.Ref, "published")
	text(&in.Basket, BasketVisitor)
	text(&in.Publish, PublishBetter)
	number(&in.Neighbours, 50)
	number(&in.MinSupport, 3)
	number(&in.MinTest, 50)
	number(&in.Keep, 3)
	if in.LookBack == 0 {
		in.LookBack = Duration(90 * day)
	}
	if in.HalfLife == 0 {
		in.HalfLife = Duration(30 * day)
	}
	if len(in.Weights) == 0 {
		in.Weights = []float64{1, 3, 5}
	}
	return in
}

// Validate implements Input.
func (in TrainRecommendationsInput) Validate() error {
	in = in.WithDefaults()
	var errs []error
	bad := func(wrong bool, format string, a ...any) {
		if wrong {
			errs = append(errs, fmt.Errorf(format, a...))
		}
	}
	if err := ValidModel(in.Model); err != nil {
		errs = append(errs, err)
	}
	bad(!tenantForm.MatchString(in.Tenant), "tenant: %.70q is not 1 to 64 characters without braces, | and control characters", in.Tenant)
	bad(len(in.Ref) > 128, "ref: has more than 128 bytes")
	bad(time.Duration(in.LookBack) < time.Hour || time.Duration(in.LookBack) > 730*day, "look_back: %s is not between 1h and 730d", in.LookBack)
	bad(in.Basket != BasketVisitor && in.Basket != BasketSession, "basket: %.60q is neither visitor nor session", in.Basket)
	sum := 0.0
	bad(len(in.Weights) != 3, "weights: %d are given; three are needed, of a view, an addition to the cart and a purchase", len(in.Weights))
	for i, w := range in.Weights {
		bad(!(w >= 0 && w <= 1000), "weights[%d]: %g is not between 0 and 1000", i, w)
		sum += math.Abs(w)
	}
	bad(sum == 0, "weights: at least one must be above 0")
	bad(time.Duration(in.HalfLife) < time.Hour || time.Duration(in.HalfLife) > 3650*day, "half_life: %s is not between 1h and 3650d", in.HalfLife)
	bad(in.Neighbours < 1 || in.Neighbours > 500, "neighbours: %d is not between 1 and 500", in.Neighbours)
	bad(in.MinSupport < 1 || in.MinSupport > 1_000_000, "min_support: %d is not between 1 and 1000000", in.MinSupport)
	bad(in.MinTest < 1 || in.MinTest > 1_000_000, "min_test: %d is not between 1 and 1000000", in.MinTest)
	bad(in.Publish != PublishBetter && in.Publish != PublishAlways && in.Publish != PublishNever, "publish: %.60q is not one of better, always, never", in.Publish)
	bad(in.Keep < 0 || in.Keep > 30, "keep: %d is not between 1 and 30", in.Keep)
	if err := ValidRun(in.Run); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// TrainRecommendationsResult is what TrainRecommendations gives.
type TrainRecommendationsResult struct {
	Model   string             `json:"model"`
	Version string             `json:"version"`
	State   string             `json:"state"` // published, refused, superseded, withdrawn or trained
	Reason  string             `json:"reason,omitempty"`
	Metrics map[string]float64 `json:"metrics"`
	Items   int                `json:"items"`
	Rows    int64              `json:"rows"`
	Steps   []StepResult       `json:"steps"`
}

func trainTypes() []Type {
	train := Type{
		Name:    TrainRecommendations,
		Doc:     "train the similarities of items from published events, measure them, publish them if they are better than popularity",
		Example: `{"model": "similar-items", "look_back": "90d"}`,
		Target: func(text []byte) (Target, error) {
			in, err := Decode[TrainRecommendationsInput](text)
			return Target{ID: TrainID(in.WithDefaults().Model), Input: in}, err
		},
	}
	return []Type{train, TickOf(train)}
}
