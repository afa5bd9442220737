package wire

// Card numbers are masked wherever they stand, because a shop's page will one day send one in a URL, a search term or a property. What counts as one is
// narrow, so that ids and amounts stay what they are: 13 to 19 digits in a range that card schemes use (ISO/IEC 7812), with a valid Luhn digit, bare or in
// the groups printed on cards, and not part of a longer hexadecimal token such as a UUID. Three numbers of the same shape are told apart: a 13-digit number
// that is a valid EAN-13 is an article number.

// maskCards masks every card number in b, in place: the first six and last four digits stay. It says whether there was one.
func maskCards(b []byte) bool {
	m := masker{b: b}
	return m.mask()
}

// maskCardsJSON does the same for JSON text, which stays valid: digits of a bare number become 0 instead of *.
func maskCardsJSON(b []byte) bool {
	m := masker{b: b, json: true}
	return m.mask()
}

// masker goes once over b.
type masker struct {
	b      []byte
	json   bool
	at     int  // how far quotes have been looked at
	quoted bool // at is inside a string
}

const minCard, maxCard = 13, 19

// cardByte are the bytes that card numbers are written with.
func cardByte(c byte) bool { return c-'0' < 10 || c == ' ' || c == '-' }

func isDigit(c byte) bool { return c-'0' < 10 }

func (m *masker) mask() bool {
	b, found := m.b, false
	// Every run of minCard bytes or more covers an index that is minCard-1 modulo minCard.
	for i := minCard - 1; i < len(b); i += minCard {
		if !cardByte(b[i]) {
			continue
		}
		from, to := i, i+1
		for from > 0 && cardByte(b[from-1]) {
			from--
		}
		for to < len(b) && cardByte(b[to]) {
			to++
		}
		if to-from >= minCard && m.run(from, to) {
			found = true
		}
		for i+minCard < to { // go on behind the run
			i += minCard
		}
	}
	return found
}

// run looks at the groups of digits of b[from:to], which holds only digits, spaces and dashes.
func (m *masker) run(from, to int) bool {
	b, found := m.b, false
	for i := from; i < to; {
		if !isDigit(b[i]) {
			i++
			continue
		}
		end := i
		for end < to && isDigit(b[end]) {
			end++
		}
		if n := end - i; n >= minCard && n <= maxCard && isCard(b[i:end], n) && !inHex(b, i, end) {
			m.digits(i, end, n)
			found = true
		} else if last, n := groups(b, i, to); n > 0 && isCard(b[i:last], n) && !glued(b, i, last) {
			m.digits(i, last, n)
			found = true
			end = last
		}
		i = end
	}
	return found
}

// groups gives the end and the number of digits of a number printed in groups (4-4-4-4, 4-4-4-4-3, 4-6-5, 4-6-4) that starts at i, all with one separator.
func groups(b []byte, i, to int) (end, digits int) {
	var lens [6]int
	n := 0
	sep := byte(0)
	for i < to && n < len(lens) {
		for i < to && isDigit(b[i]) {
			lens[n]++
			i++
		}
		end = i
		n++
		if i+1 >= to || isDigit(b[i]) || !isDigit(b[i+1]) {
			break
		}
		if sep == 0 {
			sep = b[i]
		}
		if b[i] != sep {
			break
		}
		i++
	}
	switch {
	case n == 4 && lens[0] == 4 && lens[1] == 4 && lens[2] == 4 && lens[3] == 4:
		return end, 16
	case n == 5 && lens[0] == 4 && lens[1] == 4 && lens[2] == 4 && lens[3] == 4 && lens[4] == 3:
		return end, 19
	case n == 3 && lens[0] == 4 && lens[1] == 6 && (lens[2] == 5 || lens[2] == 4):
		return end, 10 + lens[2]
	}
	return end, 0
}

// glued says whether a grouped number is part of something longer.
func glued(b []byte, from, to int) bool {
	before := from > 0 && (alnum(b[from-1]) || b[from-1] == '-' && from > 1 && alnum(b[from-2]))
	after := to < len(b) && (alnum(b[to]) || b[to] == '-' && to+1 < len(b) && alnum(b[to+1]))
	return before || after
}

func alnum(c byte) bool {
	return isDigit(c) || c|0x20 >= 'a' && c|0x20 <= 'z'
}

// inHex says whether the digits b[from:to] belong to a longer token of hexadecimal digits only, such as a hash. It looks at 64 bytes on either side.
func inHex(b []byte, from, to int) bool {
	letters := false
	for i := from - 1; i >= max(0, from-64) && alnum(b[i]); i-- {
		if i > 0 && b[i-1] == '\\' { // \n is no letter
			break
		}
		if b[i]|0x20 > 'f' {
			return false
		}
		letters = letters || !isDigit(b[i])
	}
	for i := to; i < min(len(b), to+64) && alnum(b[i]); i++ {
		if b[i]|0x20 > 'f' {
			return false
		}
		letters = letters || !isDigit(b[i])
	}
	return letters
}

// digits masks the n digits of b[from:to] but the first six and the last four.
func (m *masker) digits(from, to, n int) {
	with := byte('*')
	if m.json && !m.inString(from) {
		with = '0'
	}
	seen := 0
	for i := from; i < to; i++ {
		if !isDigit(m.b[i]) {
			continue
		}
		if seen++; seen > 6 && seen <= n-4 {
			m.b[i] = with
		}
	}
}

// inString says whether position at of JSON text is inside a string. Positions come in ascending order.
func (m *masker) inString(at int) bool {
	for ; m.at < at; m.at++ {
		switch m.b[m.at] {
		case '"':
			m.quoted = !m.quoted
		case '\\':
			if m.quoted {
				m.at++
			}
		}
	}
	return m.quoted
}

// isCard says whether the n digits in b (with separators) are a card number: a scheme's range and a valid Luhn digit.
func isCard(b []byte, n int) bool {
	var digits [maxCard]byte
	i := 0
	for _, c := range b {
		if isDigit(c) {
			digits[i] = c - '0'
			i++
		}
	}
	d := digits[:n]
	if !inCardRange(d) {
		return false
	}
	sum := 0
	for i, digit := range d {
		v := int(digit)
		if (n-i)%2 == 0 { // every second digit from the right
			if v *= 2; v > 9 {
				v -= 9
			}
		}
		sum += v
	}
	return sum%10 == 0 && (n != 13 || !isEAN(d))
}

// isEAN says whether 13 digits have the check digit of an article number.
func isEAN(d []byte) bool {
	sum := 0
	for i, v := range d {
		sum += int(v) * (1 + i%2*2)
	}
	return sum%10 == 0
}

// inCardRange says whether the digits begin as some scheme's cards do, and are as many.
func inCardRange(d []byte) bool {
	n := len(d)
	p := 0
	for _, v := range d[:6] {
		p = p*10 + int(v)
	}
	in := func(from, to int) bool { return p >= from && p <= to }
	switch {
	case d[0] == 4: // Visa
		return n == 13 || n == 16 || n == 19
	case in(510000, 559999), in(222100, 272099): // Mastercard
		return n == 16
	case in(340000, 349999), in(370000, 379999): // American Express
		return n == 15
	case in(300000, 305999), in(309500, 309599), in(360000, 369999), in(380000, 399999): // Diners
		return n == 14 || n == 16
	case in(352800, 358999): // JCB
		return n >= 16
	case in(601100, 601199), in(644000, 659999), in(620000, 629999), in(810000, 817199): // Discover, UnionPay
		return n >= 16
	case in(220000, 220499): // Mir
		return n >= 16
	case in(500000, 509999), in(560000, 589999), in(600000, 699999): // Maestro, RuPay, Elo
		return n == 16 || n >= 18
	}
	return false
}
