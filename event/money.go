package event

import (
	"errors"
	"strconv"
)

// Amounts are exact: int64 micros of an ISO 4217 currency. They are never added across currencies.

// MicrosPerUnit is the number of micros in one unit of a currency.
const MicrosPerUnit = 1_000_000

// MaxAmount bounds |amount|: 10^12 units, exclusive, in micros.
const MaxAmount = 1_000_000_000_000 * MicrosPerUnit

// ErrAmount says that a text is no valid amount: not a decimal number, more than six decimals, or 10^12 units or more. Amounts are never rounded.
var ErrAmount = errors.New("not an amount: a decimal number with at most 6 decimals and below 10^12 units is expected")

// ParseAmount reads an amount from its digits (a JSON number or string: "129.90", "1e2", "-3"). It never goes through a float.
func ParseAmount(s string) (int64, error) {
	if s == "" || len(s) > 64 {
		return 0, ErrAmount
	}
	i, neg := 0, false
	if s[0] == '-' || s[0] == '+' {
		neg = s[0] == '-'
		i++
	}
	// The digits, without point, and the exponent of the last of them.
	var digits [64]byte
	n, exp, seen, point := 0, 0, false, false
	for ; i < len(s); i++ {
		c := s[i]
		switch {
		case c >= '0' && c <= '9':
			seen = true
			if point {
				exp--
			}
			if n > 0 || c != '0' {
				digits[n] = c
				n++
			}
		case c == '.' && !point:
			point = true
		case (c == 'e' || c == 'E') && seen:
			e, err := strconv.ParseInt(s[i+1:], 10, 16)
			if err != nil {
				return 0, ErrAmount
			}
			exp += int(e)
			i = len(s)
		default:
			return 0, ErrAmount
		}
	}
	if !seen {
		return 0, ErrAmount
	}
	for n > 0 && digits[n-1] == '0' { // 1.500000000 is 1.5
		n--
		exp++
	}
	if n == 0 {
		return 0, nil
	}
	exp += 6 // to micros
	if exp < 0 || n+exp > 18 {
		return 0, ErrAmount
	}
	var v int64
	for _, c := range digits[:n] {
		v = v*10 + int64(c-'0')
	}
	for range exp {
		v *= 10
	}
	if v >= MaxAmount {
		return 0, ErrAmount
	}
	if neg {
		v = -v
	}
	return v, nil
}

// AppendAmount writes micros as the shortest exact decimal: 129.9, -3, 0.000001.
func AppendAmount(dst []byte, micros int64) []byte {
	u := uint64(micros)
	if micros < 0 {
		dst = append(dst, '-')
		u = -u
	}
	dst = strconv.AppendUint(dst, u/MicrosPerUnit, 10)
	frac := u % MicrosPerUnit
	if frac == 0 {
		return dst
	}
	dst = append(dst, '.')
	for d := uint64(MicrosPerUnit / 10); frac > 0; d /= 10 {
		dst = append(dst, byte('0'+frac/d))
		frac %= d
	}
	return dst
}

// FormatAmount is AppendAmount as a string.
func FormatAmount(micros int64) string { return string(AppendAmount(nil, micros)) }

// WellFormedCurrency says whether s looks like an ISO 4217 code: three capital letters.
func WellFormedCurrency(s string) bool {
	return len(s) == 3 && s[0] >= 'A' && s[0] <= 'Z' && s[1] >= 'A' && s[1] <= 'Z' && s[2] >= 'A' && s[2] <= 'Z'
}
