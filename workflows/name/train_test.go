package name

import (
	"strings"
	"testing"
)

func TestATrainingsInputIsCheckedWithItsDefaults(t *testing.T) {
	for text, want := range map[string]string{
		`{}`: "",
		`{"model": "a-1", "publish": "always", "basket": "session", "weights": [0, 0, 1], "keep": 30}`: "",
		`{"model": "A"}`:          "model",
		`{"tenant": "a|b"}`:       "tenant",
		`{"look_back": "1m"}`:     "look_back",
		`{"look_back": 90}`:       "look_back",
		`{"basket": "order"}`:     "basket",
		`{"weights": [1, 2]}`:     "weights",
		`{"weights": [0, 0, 0]}`:  "weights",
		`{"weights": [1, -2, 3]}`: "weights[1]",
		`{"half_life": "1s"}`:     "half_life",
		`{"neighbours": 501}`:     "neighbours",
		`{"min_support": -1}`:     "min_support",
		`{"min_test": -1}`:        "min_test",
		`{"publish": "maybe"}`:    "publish",
		`{"keep": 31}`:            "keep",
		`{"run": "a b"}`:          "run",
		`{"modell": "x"}`:         "did you mean model?",
	} {
		_, err := Decode[TrainRecommendationsInput]([]byte(text))
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v", text, err)
		}
	}
	all := `{"model": "!", "tenant": "{", "look_back": "1s", "basket": "x", "weights": [], "half_life": "1s", "neighbours": 9999, "publish": "x", "keep": 99, "run": "!"}`
	if _, err := Decode[TrainRecommendationsInput]([]byte(all)); err == nil || strings.Count(err.Error(), "\n")+strings.Count(err.Error(), "; ") < 8 {
		t.Errorf("not every problem is listed: %v", err)
	}
	typ, err := TypeNamed(TrainRecommendations)
	if err != nil {
		t.Fatal(err)
	}
	if target, err := typ.Target([]byte(`{}`)); err != nil || target.ID != "train/similar-items" {
		t.Errorf("%+v %v", target, err)
	}
}
