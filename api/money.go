package api

import (
	"encoding/json"
	"math/big"
	"strings"
	"time"

	"github.com/shopspring/decimal"

	"millrace/event"
)

// money writes an amount exactly, with at least two decimals.
func money(d decimal.Decimal) string {
	s := d.StringFixed(6)
	for range 4 {
		if !strings.HasSuffix(s, "0") {
			break
		}
		s = s[:len(s)-1]
	}
	return s
}

// ofSum is a 128-bit sum of micros as a decimal.
func ofSum(s event.Sum) decimal.Decimal { return decimal.NewFromBigInt(s.Big(), -6) }

// per divides an amount, rounded to two decimals; nil where there is nothing to divide by.
func per(d decimal.Decimal, n int64) *string {
	if n == 0 {
		return nil
	}
	s := d.DivRound(decimal.NewFromBigInt(big.NewInt(n), 0), 2).StringFixed(2)
	return &s
}

// ratio divides; nil where the denominator is 0.
func ratio(n, d int64) *float64 {
	if d == 0 {
		return nil
	}
	q := float64(n) / float64(d)
	return &q
}

// number is an exact JSON number.
func number(d decimal.Decimal) json.Number { return json.Number(d.String()) }

// stamp is a time as the API writes it: UTC, microseconds.
type stamp time.Time

// MarshalJSON implements json.Marshaler.
func (s stamp) MarshalJSON() ([]byte, error) {
	return time.Time(s).UTC().Truncate(time.Microsecond).AppendFormat([]byte{'"'}, `2006-01-02T15:04:05.999999Z07:00"`), nil
}

// stampOf is nil for a zero time.
func stampOf(t time.Time) *stamp {
	if t.IsZero() {
		return nil
	}
	s := stamp(t)
	return &s
}
