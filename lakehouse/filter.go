package lakehouse

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/apache/iceberg-go"

	"millrace/internal/fault"
)

// ParseFilter reads a filter over the columns of a schema: comparisons COLUMN OP LITERAL joined by AND, where OP is = != < <= > >= IN, NOT IN, LIKE 'prefix%', IS NULL or
// IS NOT NULL. Texts and times stand in single quotes, a quote in a text is doubled. Everything that is wrong is fault MR-ICE-063.
func ParseFilter(sc *iceberg.Schema, text string) (iceberg.BooleanExpression, error) {
	toks, err := lex(text)
	if err == nil && len(toks) == 0 {
		err = errors.New("it is empty")
	}
	if err != nil {
		return nil, fault.New("MR-ICE-063", fmt.Errorf("filter: %w", err))
	}
	p := &filterParser{sc: sc, toks: toks}
	var out iceberg.BooleanExpression = iceberg.AlwaysTrue{}
	for {
		e, err := p.comparison()
		if err != nil {
			return nil, fault.New("MR-ICE-063", fmt.Errorf("filter: %w", err))
		}
		out = iceberg.NewAnd(out, e)
		if p.at == len(p.toks) {
			return out, nil
		}
		if !p.word("AND") {
			return nil, fault.New("MR-ICE-063", fmt.Errorf("filter: AND or the end is expected, not %s", p.toks[p.at].text))
		}
	}
}

// CheckColumns says which of some columns a schema does not have, with the nearest names.
func CheckColumns(sc *iceberg.Schema, columns []string) error {
	var errs []error
	for _, c := range columns {
		if _, ok := sc.FindFieldByName(c); !ok {
			errs = append(errs, noColumn(sc, c))
		}
	}
	return fault.New("MR-ICE-063", errors.Join(errs...))
}

func noColumn(sc *iceberg.Schema, name string) error {
	best, least := "", len(name)/2+1
	for _, f := range sc.Fields() {
		if d := editDistance(strings.ToLower(name), f.Name); d < least {
			best, least = f.Name, d
		}
	}
	if best != "" {
		return fmt.Errorf("there is no column %q, did you mean %s?", name, best)
	}
	var names []string
	for _, f := range sc.Fields() {
		names = append(names, f.Name)
	}
	return fmt.Errorf("there is no column %q; there are %s", name, strings.Join(names, ", "))
}

// editDistance is Levenshtein's.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diag := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diag, row[j+1] = row[j+1], min(row[j+1]+1, row[j]+1, diag+cost)
		}
	}
	return row[len(b)]
}

type token struct {
	text   string
	quoted bool
}

func lex(s string) ([]token, error) {
	var out []token
	for i := 0; i < len(s); {
		switch c := s[i]; {
		case c == ' ' || c == '\t' || c == '\n':
			i++
		case c == '\'':
			var b strings.Builder
			for i++; ; i++ {
				if i >= len(s) {
					return nil, errors.New("a text is not closed by a quote")
				}
				if s[i] == '\'' {
					if i++; i >= len(s) || s[i] != '\'' {
						break
					}
				}
				b.WriteByte(s[i])
			}
			out = append(out, token{b.String(), true})
		case strings.IndexByte("(),", c) >= 0:
			out, i = append(out, token{string(c), false}), i+1
		case strings.IndexByte("=<>!", c) >= 0:
			n := 1
			if i+1 < len(s) && (s[i+1] == '=' || c == '<' && s[i+1] == '>') {
				n = 2
			}
			out, i = append(out, token{s[i : i+n], false}), i+n
		default:
			n := strings.IndexFunc(s[i:], func(r rune) bool { return unicode.IsSpace(r) || strings.ContainsRune("(),=<>!'", r) })
			if n < 0 {
				n = len(s) - i
			}
			out, i = append(out, token{s[i : i+n], false}), i+n
		}
	}
	return out, nil
}

type filterParser struct {
	sc   *iceberg.Schema
	toks []token
	at   int
}

// next takes a token; at the end there is none.
func (p *filterParser) next() (token, bool) {
	if p.at == len(p.toks) {
		return token{}, false
	}
	p.at++
	return p.toks[p.at-1], true
}

// word takes a word if it is the next.
func (p *filterParser) word(w string) bool {
	if p.at < len(p.toks) && !p.toks[p.at].quoted && strings.EqualFold(p.toks[p.at].text, w) {
		p.at++
		return true
	}
	return false
}

var filterOps = map[string]iceberg.Operation{
	"=": iceberg.OpEQ, "==": iceberg.OpEQ, "!=": iceberg.OpNEQ, "<>": iceberg.OpNEQ, "<": iceberg.OpLT, "<=": iceberg.OpLTEQ, ">": iceberg.OpGT, ">=": iceberg.OpGTEQ,
}

func (p *filterParser) comparison() (iceberg.BooleanExpression, error) {
	t, ok := p.next()
	if !ok || t.quoted {
		return nil, fmt.Errorf("a column is expected, not %q", t.text)
	}
	f, ok := p.sc.FindFieldByName(t.text)
	if !ok {
		return nil, noColumn(p.sc, t.text)
	}
	if _, ok := f.Type.(iceberg.PrimitiveType); !ok {
		return nil, fmt.Errorf("column %s is a list: it cannot be compared", f.Name)
	}
	ref := iceberg.Reference(f.Name)
	if p.word("IS") {
		not := p.word("NOT")
		if !p.word("NULL") {
			return nil, fmt.Errorf("NULL or NOT NULL is expected after IS of column %s", f.Name)
		}
		if not {
			return iceberg.NotNull(ref), nil
		}
		return iceberg.IsNull(ref), nil
	}
	not := p.word("NOT")
	if p.word("IN") {
		lits, err := p.list(f)
		if err != nil {
			return nil, err
		}
		if not {
			return iceberg.SetPredicate(iceberg.OpNotIn, ref, lits), nil
		}
		return iceberg.SetPredicate(iceberg.OpIn, ref, lits), nil
	}
	if p.word("LIKE") {
		t, ok := p.next()
		prefix, tail := strings.CutSuffix(t.text, "%")
		if !ok || !t.quoted || !tail || strings.ContainsAny(prefix, "%_") || f.Type != iceberg.PrimitiveTypes.String {
			return nil, fmt.Errorf("LIKE of column %s needs a text column and a beginning such as 'abc%%'", f.Name)
		}
		return begins(ref, prefix, not), nil
	}
	if not {
		return nil, fmt.Errorf("IN or LIKE is expected after NOT of column %s", f.Name)
	}
	t, ok = p.next()
	op, known := filterOps[t.text]
	if !ok || t.quoted || !known {
		return nil, fmt.Errorf("a comparison is expected after column %s, not %q: = != < <= > >= IN, LIKE, IS NULL", f.Name, t.text)
	}
	lit, err := p.literal(f)
	if err != nil {
		return nil, err
	}
	return iceberg.LiteralPredicate(op, ref, lit), nil
}

// begins is a comparison with a prefix, as a range: iceberg-go cannot apply its own to rows.
func begins(ref iceberg.Reference, prefix string, not bool) iceberg.BooleanExpression {
	end := []byte(prefix)
	for len(end) > 0 && end[len(end)-1] == 0xff {
		end = end[:len(end)-1]
	}
	from := iceberg.BooleanExpression(iceberg.GreaterThanEqual(ref, prefix))
	before := iceberg.BooleanExpression(iceberg.LessThan(ref, prefix))
	if len(end) > 0 {
		end[len(end)-1]++
		from = iceberg.NewAnd(from, iceberg.LessThan(ref, string(end)))
		before = iceberg.NewOr(before, iceberg.GreaterThanEqual(ref, string(end)))
	}
	if not {
		return before
	}
	return from
}

func (p *filterParser) list(f iceberg.NestedField) ([]iceberg.Literal, error) {
	if !p.word("(") {
		return nil, fmt.Errorf("( is expected after IN of column %s", f.Name)
	}
	var out []iceberg.Literal
	for {
		lit, err := p.literal(f)
		if err != nil {
			return nil, err
		}
		out = append(out, lit)
		if p.word(")") {
			return out, nil
		}
		if !p.word(",") {
			return nil, fmt.Errorf(", or ) is expected in the list of column %s", f.Name)
		}
	}
}

// literal reads a value of a column's type.
func (p *filterParser) literal(f iceberg.NestedField) (iceberg.Literal, error) {
	t, ok := p.next()
	if !ok || !t.quoted && slices.Contains([]string{"(", ")", ","}, t.text) {
		return nil, fmt.Errorf("a value is expected for column %s", f.Name)
	}
	text := t.text
	bad := func(example string) error {
		return fmt.Errorf("column %s is %s: %q is no such value, an example is %s", f.Name, f.Type, text, example)
	}
	switch typ := f.Type.(type) {
	case iceberg.StringType:
		if !t.quoted {
			return nil, fmt.Errorf("column %s is a text: write '%s' in single quotes", f.Name, text)
		}
		return iceberg.NewLiteral(text), nil
	case iceberg.TimestampTzType, iceberg.TimestampType:
		for _, form := range []string{time.RFC3339Nano, "2006-01-02 15:04:05.999999", time.DateOnly} {
			if at, err := time.Parse(form, text); err == nil && t.quoted {
				return iceberg.NewLiteral(iceberg.Timestamp(at.UnixMicro())), nil
			}
		}
		return nil, bad("'2026-03-01T12:00:00Z' or '2026-03-01'")
	case iceberg.DecimalType:
		whole, frac, _ := strings.Cut(text, ".")
		if len(frac) <= typ.Scale() {
			if lit, err := iceberg.NewLiteral(whole + "." + frac + strings.Repeat("0", typ.Scale()-len(frac))).To(typ); err == nil && !t.quoted {
				return lit, nil
			}
		}
		return nil, bad(fmt.Sprintf("129.90, with at most %d decimals", typ.Scale()))
	case iceberg.BooleanType:
		switch strings.ToLower(text) {
		case "true":
			return iceberg.NewLiteral(true), nil
		case "false":
			return iceberg.NewLiteral(false), nil
		}
		return nil, bad("true")
	}
	lit, err := iceberg.NewLiteral(text).To(f.Type)
	if err != nil || t.quoted {
		return nil, bad("42")
	}
	return lit, nil
}
