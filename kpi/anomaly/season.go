package anomaly

import (
	"encoding/binary"
	"errors"
	"math"
	"slices"
)

// The season has a slot for each 10 minutes of the week, and of each slot the last four weeks.
const (
	slotMinutes = 10
	slots       = 24 * 60 / slotMinutes
	weeks       = 4
	daysToKnow  = 3 // days of which a time of day must be known before anything is expected of it
)

// Day is the season of one day of the week: the levels of its slots in the last weeks, newest first, 0 where there is none. A level is the mean of the slot's minutes as square
// roots, each kept within three deviations of what was expected, without those of incidents.
type Day [slots][weeks]float32

// Season gives the days of a series, 0 for Sunday. A day of which nothing is known is nil. They are read only.
type Season interface{ Day(weekday int) *Day }

// push puts a newest week.
func (d *Day) push(slot int, level float32) {
	w := &d[slot]
	copy(w[1:], w[:weeks-1])
	w[0] = level
}

// level is what a slot of the week is expected to be: the median of its last weeks. Until the first week is over it is the median of the same time on the other days, if
// there are enough of them; between days the level of the last hour makes up the difference.
func level(s Season, weekday, slot int) (float64, bool) {
	if slot < 0 {
		weekday, slot = (weekday+6)%7, slot+slots
	}
	if slot >= slots {
		weekday, slot = (weekday+1)%7, slot-slots
	}
	var known [7]float32
	n := 0
	if d := s.Day(weekday); d != nil {
		for _, v := range d[slot] {
			if v > 0 {
				known[n] = v
				n++
			}
		}
	}
	if n > 0 {
		return median(known[:n]), true
	}
	for w := range 7 {
		if d := s.Day(w); d != nil && d[slot][0] > 0 {
			known[n] = d[slot][0]
			n++
		}
	}
	if n < daysToKnow {
		return 0, false
	}
	return median(known[:n]), true
}

// expected is the season at a minute of a day: slots smoothed with their neighbours (¼ ½ ¼), and a straight line between the middles of two.
func expected(s Season, weekday, minute int) (float64, bool) {
	at := (float64(minute)+0.5)/slotMinutes - 0.5
	first := int(math.Floor(at))
	var l [4]float64
	for i := range l {
		v, ok := level(s, weekday, first-1+i)
		if !ok {
			return 0, false
		}
		l[i] = v
	}
	a, b := l[0]/4+l[1]/2+l[2]/4, l[1]/4+l[2]/2+l[3]/4
	return a + (at-float64(first))*(b-a), true
}

// median sorts v.
func median(v []float32) float64 {
	slices.Sort(v)
	n := len(v)
	return (float64(v[(n-1)/2]) + float64(v[n/2])) / 2
}

// DayBytes is the size of a day's state form.
const DayBytes = slots * weeks * 4

// Append writes d in the form that DecodeDay reads: levels as big endian floats of 32 bits.
func (d *Day) Append(dst []byte) []byte {
	for i := range d {
		for _, v := range d[i] {
			dst = binary.BigEndian.AppendUint32(dst, math.Float32bits(v))
		}
	}
	return dst
}

// DecodeDay reads what Append wrote.
func DecodeDay(src []byte) (*Day, error) {
	if len(src) != DayBytes {
		return nil, errors.New("not a day of a season")
	}
	d := &Day{}
	for i := range d {
		for w := range d[i] {
			v := math.Float32frombits(binary.BigEndian.Uint32(src))
			if !(v >= 0 && v <= math.MaxFloat32) {
				return nil, errors.New("not a level of a season")
			}
			d[i][w], src = v, src[4:]
		}
	}
	return d, nil
}
