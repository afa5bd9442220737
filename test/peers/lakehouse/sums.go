package main

import (
	"context"
	"fmt"
	"math/big"
	"reflect"
	"strconv"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
)

// sums are what is added up over SELECT *, by us and by each reader (readers.py).
type sums struct {
	Rows      int64             `json:"rows"`
	Distinct  int64             `json:"distinct"`
	HashLo    int64             `json:"hash_lo"` // Σ of the halves of row_hash
	HashHi    int64             `json:"hash_hi"`
	Value     map[string]string `json:"value"` // by currency, exact decimals
	Revenue   map[string]string `json:"revenue"`
	Items     int64             `json:"items"`
	ItemPrice string            `json:"item_price"`
	Offsets   map[string]int64  `json:"offsets"` // greatest, by partition
	Columns   []string          `json:"columns"` // in order
	Nulls     map[string]int64  `json:"nulls"`   // by column
	Times     map[string]string `json:"times"`   // Σ of microseconds, by column of time
	Texts     map[string]int64  `json:"texts"`   // Σ of UTF-8 bytes, by column of text
	Error     string            `json:"error"`
	Millis    int64             `json:"millis"`
}

func newSums() sums {
	return sums{Value: map[string]string{}, Revenue: map[string]string{}, Offsets: map[string]int64{}, Nulls: map[string]int64{}, Times: map[string]string{}, Texts: map[string]int64{}}
}

func (s *sums) hash(h int64) {
	s.HashLo += h & 0xFFFFFFFF
	s.HashHi += h >> 32 & 0xFFFFFFFF
}

// differences says in which fields another reader differs from ours.
func (s sums) differences(r sums) []string {
	if r.Error != "" {
		return []string{r.Error}
	}
	r.Millis = s.Millis
	var out []string
	a, b := reflect.ValueOf(s), reflect.ValueOf(r)
	for i := range a.NumField() {
		if !reflect.DeepEqual(a.Field(i).Interface(), b.Field(i).Interface()) {
			out = append(out, fmt.Sprintf("%s is %v, ours %v", a.Type().Field(i).Tag.Get("json"), b.Field(i).Interface(), a.Field(i).Interface()))
		}
	}
	return out
}

// sums adds up the whole table at its head.
func (s *subject) sums(ctx context.Context) (sums, error) {
	out := newSums()
	ids := map[string]bool{}
	value, revenue, times := map[string]*big.Int{}, map[string]*big.Int{}, map[string]*big.Int{}
	price := new(big.Int)
	err := s.cat.Scan(ctx, purchases, "", nil, func(b arrow.RecordBatch) error {
		out.Rows += b.NumRows()
		if out.Columns == nil {
			for _, f := range b.Schema().Fields() {
				out.Columns = append(out.Columns, f.Name)
			}
		}
		col := map[string]arrow.Array{}
		for i, f := range b.Schema().Fields() {
			a := b.Column(i)
			col[f.Name] = a
			out.Nulls[f.Name] += int64(a.NullN())
			switch a := a.(type) {
			case *array.Timestamp:
				for i := range a.Len() {
					if a.IsValid(i) {
						add(times, f.Name, big.NewInt(int64(a.Value(i))))
					}
				}
			case *array.String:
				for i := range a.Len() {
					if a.IsValid(i) {
						out.Texts[f.Name] += int64(len(a.Value(i)))
					}
				}
			}
		}
		return out.rows(col, ids, value, revenue, price)
	})
	out.Distinct = int64(len(ids))
	for currency, v := range value {
		out.Value[currency] = decimal(v)
	}
	for currency, v := range revenue {
		out.Revenue[currency] = decimal(v)
	}
	for name, v := range times {
		out.Times[name] = v.String()
	}
	out.ItemPrice = decimal(price)
	return out, err
}

func (s *sums) rows(col map[string]arrow.Array, ids map[string]bool, value, revenue map[string]*big.Int, price *big.Int) error {
	tenant, ok1 := col["tenant"].(*array.String)
	source, ok2 := col["source"].(*array.String)
	id, ok3 := col["event_id"].(*array.String)
	name, ok4 := col["name"].(*array.String)
	hash, ok5 := col["row_hash"].(*array.Int64)
	amount, ok6 := col["value"].(*array.Decimal128)
	currency, ok7 := col["currency"].(*array.String)
	partition, ok8 := col["kafka_partition"].(*array.Int32)
	offset, ok9 := col["kafka_offset"].(*array.Int64)
	items, ok10 := col["items"].(*array.List)
	if !ok1 || !ok2 || !ok3 || !ok4 || !ok5 || !ok6 || !ok7 || !ok8 || !ok9 || !ok10 {
		return fmt.Errorf("unexpected columns: %v", col)
	}
	for i := range id.Len() {
		ids[strings.Join([]string{tenant.Value(i), source.Value(i), id.Value(i)}, "\x00")] = true
		s.hash(hash.Value(i))
		if amount.IsValid(i) {
			c := ""
			if currency.IsValid(i) {
				c = currency.Value(i)
			}
			add(value, c, amount.Value(i).BigInt())
			if name.Value(i) == "purchase" {
				add(revenue, c, amount.Value(i).BigInt())
			}
		}
		p := strconv.Itoa(int(partition.Value(i)))
		if at, ok := s.Offsets[p]; !ok || offset.Value(i) > at {
			s.Offsets[p] = offset.Value(i)
		}
	}
	lines, ok := items.ListValues().(*array.Struct)
	if !ok {
		return fmt.Errorf("items are %T", items.ListValues())
	}
	field, found := lines.DataType().(*arrow.StructType).FieldIdx("price")
	prices, ok := lines.Field(field).(*array.Decimal128)
	if !found || !ok {
		return fmt.Errorf("items have no price: %s", lines.DataType())
	}
	for i := range items.Len() {
		if items.IsNull(i) {
			continue
		}
		from, to := items.ValueOffsets(i)
		for k := from; k < to; k++ {
			s.Items++
			if prices.IsValid(int(k)) {
				price.Add(price, prices.Value(int(k)).BigInt())
			}
		}
	}
	return nil
}

func add(m map[string]*big.Int, k string, v *big.Int) {
	if m[k] == nil {
		m[k] = new(big.Int)
	}
	m[k].Add(m[k], v)
}

// decimal writes millionths with six decimals, as sums.py does.
func decimal(v *big.Int) string {
	sign := ""
	if v.Sign() < 0 {
		sign = "-"
	}
	q, r := new(big.Int).QuoRem(new(big.Int).Abs(v), big.NewInt(1_000_000), new(big.Int))
	return fmt.Sprintf("%s%s.%06d", sign, q, r)
}
