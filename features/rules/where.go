package rules

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"millrace/event"
)

// The grammar of where, a comparison of named fields with constants; what has no field in it cannot be said, so nothing is always true by its form:
//
//	expr  = and { "||" and }
//	and   = not { "&&" not }
//	not   = "!" not | "(" expr ")" | cmp
//	cmp   = FIELD [ ("==" | "!=" | "<" | "<=" | ">" | ">=") LITERAL | "in" "(" LITERAL { "," LITERAL } ")" ]
//
// A literal is a text in double or single quotes, or a decimal number. A truth value stands alone.
const (
	maxWhere = 1000 // bytes
	maxDepth = 20
	maxTerms = 50
)

// predicate says whether an event is meant.
type predicate func(*event.Rekeyed) bool

// parseWhere compiles an expression and gives its normal form, in which white space and quotes do not count.
func parseWhere(s string) (predicate, string, error) {
	if len(s) > maxWhere {
		return nil, "", fmt.Errorf("%d bytes, at most %d are taken", len(s), maxWhere)
	}
	p := &whereParser{}
	if err := p.scan(s); err != nil {
		return nil, "", err
	}
	f, err := p.or(0)
	if err != nil {
		return nil, "", err
	}
	if p.i < len(p.tokens) {
		return nil, "", fmt.Errorf("%s is left over", p.tokens[p.i])
	}
	parts := make([]string, len(p.tokens))
	for i, t := range p.tokens {
		parts[i] = t.String()
	}
	return f, strings.Join(parts, " "), nil
}

type token struct {
	kind byte // 'w' word, 's' text, 'n' number, 'o' operator
	text string
}

func (t token) String() string {
	if t.kind == 's' {
		return strconv.Quote(t.text)
	}
	return t.text
}

type whereParser struct {
	tokens []token
	i      int
	terms  int
}

func (p *whereParser) scan(s string) error {
	for i := 0; i < len(s); {
		c := s[i]
		switch {
		case c == ' ' || c == '\t' || c == '\n':
			i++
		case c == '"' || c == '\'':
			end := strings.IndexByte(s[i+1:], c)
			if end < 0 {
				return fmt.Errorf("the text that begins at byte %d has no end", i)
			}
			p.tokens = append(p.tokens, token{'s', s[i+1 : i+1+end]})
			i += end + 2
		case isWord(c):
			j := i
			for j < len(s) && (isWord(s[j]) || digit(s[j])) {
				j++
			}
			p.tokens = append(p.tokens, token{'w', s[i:j]})
			i = j
		case digit(c) || c == '-' && i+1 < len(s) && digit(s[i+1]):
			j := i + 1
			for j < len(s) && (digit(s[j]) || s[j] == '.') {
				j++
			}
			p.tokens = append(p.tokens, token{'n', s[i:j]})
			i = j
		default:
			n := 1
			if i+1 < len(s) && strings.Contains(" == != <= >= && || ", " "+s[i:i+2]+" ") {
				n = 2
			}
			op := s[i : i+n]
			if n == 1 && !strings.Contains("<>!(),", op) {
				return fmt.Errorf("%q at byte %d is no part of an expression", op, i)
			}
			p.tokens = append(p.tokens, token{'o', op})
			i += n
		}
	}
	return nil
}

func isWord(c byte) bool { return c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' }
func digit(c byte) bool  { return c >= '0' && c <= '9' }

// take gives the next token if it is the given operator or word.
func (p *whereParser) take(text string) bool {
	if p.i < len(p.tokens) && p.tokens[p.i].kind != 's' && p.tokens[p.i].text == text {
		p.i++
		return true
	}
	return false
}

func (p *whereParser) or(depth int) (predicate, error) {
	f, err := p.and(depth)
	for err == nil && p.take("||") {
		var g predicate
		a := f
		g, err = p.and(depth)
		f = func(e *event.Rekeyed) bool { return a(e) || g(e) }
	}
	return f, err
}

func (p *whereParser) and(depth int) (predicate, error) {
	f, err := p.not(depth)
	for err == nil && p.take("&&") {
		var g predicate
		a := f
		g, err = p.not(depth)
		f = func(e *event.Rekeyed) bool { return a(e) && g(e) }
	}
	return f, err
}

func (p *whereParser) not(depth int) (predicate, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("nested deeper than %d", maxDepth)
	}
	switch {
	case p.take("!"):
		f, err := p.not(depth + 1)
		return func(e *event.Rekeyed) bool { return !f(e) }, err
	case p.take("("):
		f, err := p.or(depth + 1)
		if err == nil && !p.take(")") {
			err = errors.New("a closing parenthesis is missing")
		}
		return f, err
	}
	if p.terms++; p.terms > maxTerms {
		return nil, fmt.Errorf("more than %d comparisons", maxTerms)
	}
	return p.compare()
}

func (p *whereParser) next() (token, error) {
	if p.i == len(p.tokens) {
		return token{}, errors.New("it ends too early")
	}
	p.i++
	return p.tokens[p.i-1], nil
}

func (p *whereParser) compare() (predicate, error) {
	t, err := p.next()
	if err != nil {
		return nil, err
	}
	f, ok := fieldNamed(t.text)
	if t.kind != 'w' || !ok {
		return nil, fmt.Errorf("%s is no field; the fields are %s", t, strings.Join(Fields(), ", "))
	}
	if f.kind == truth {
		return f.truth, nil
	}
	op, err := p.next()
	if err != nil {
		return nil, err
	}
	if op == (token{'w', "in"}) {
		return p.in(f)
	}
	if op.kind != 'o' || !strings.Contains(" == != < <= > >= ", " "+op.text+" ") {
		return nil, fmt.Errorf("%s after %s is no comparison", op, f.name)
	}
	lit, err := p.next()
	if err != nil {
		return nil, err
	}
	if f.kind == number {
		n, err := literal(f, lit)
		return compareNumbers(f.num, op.text, n), err
	}
	if lit.kind != 's' {
		return nil, fmt.Errorf("%s is a text: compare it with one in quotes, not with %s", f.name, lit)
	}
	switch op.text {
	case "==":
		return func(e *event.Rekeyed) bool { return f.text(e) == lit.text }, nil
	case "!=":
		return func(e *event.Rekeyed) bool { return f.text(e) != lit.text }, nil
	}
	return nil, fmt.Errorf("%s is a text: == , != and in compare it, not %s", f.name, op)
}

func literal(f field, t token) (float64, error) {
	n, err := strconv.ParseFloat(t.text, 64)
	if t.kind != 'n' || err != nil || math.IsInf(n, 0) {
		return 0, fmt.Errorf("%s is a number: %s is none", f.name, t)
	}
	return n, nil
}

func compareNumbers(num func(*event.Rekeyed) float64, op string, n float64) predicate {
	switch op {
	case "==":
		return func(e *event.Rekeyed) bool { return num(e) == n }
	case "!=":
		return func(e *event.Rekeyed) bool { return num(e) != n }
	case "<":
		return func(e *event.Rekeyed) bool { return num(e) < n }
	case "<=":
		return func(e *event.Rekeyed) bool { return num(e) <= n }
	case ">":
		return func(e *event.Rekeyed) bool { return num(e) > n }
	default:
		return func(e *event.Rekeyed) bool { return num(e) >= n }
	}
}

// in compiles a list; the word in has been taken.
func (p *whereParser) in(f field) (predicate, error) {
	if !p.take("(") {
		return nil, fmt.Errorf("in after %s wants a list in parentheses", f.name)
	}
	texts, numbers := map[string]bool{}, map[float64]bool{}
	for {
		t, err := p.next()
		if err != nil {
			return nil, err
		}
		switch {
		case f.kind == number:
			n, err := literal(f, t)
			if err != nil {
				return nil, err
			}
			numbers[n] = true
		case t.kind != 's':
			return nil, fmt.Errorf("%s is a text: list texts in quotes, not %s", f.name, t)
		default:
			texts[t.text] = true
		}
		if p.take(")") {
			break
		}
		if !p.take(",") {
			return nil, errors.New("a list wants commas between its values and a closing parenthesis")
		}
	}
	if f.kind == number {
		return func(e *event.Rekeyed) bool { return numbers[f.num(e)] }, nil
	}
	return func(e *event.Rekeyed) bool { return texts[f.text(e)] }, nil
}
