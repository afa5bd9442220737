package anomaly

import (
	"encoding/binary"
	"errors"
	"math"
)

// HeadBytes is the size of a head's state form. A series is its head and seven days: 1.3 KB and 16 KB.
const HeadBytes = 1 + 3*8 + 4*4 + (2*levelMinutes+scaleMinutes+4*lastMinutes)*4 + 7*8 + 1

const (
	flagOpen = 1 << iota
	flagDrop
	flagsEnd
)

// Append writes h in the form that DecodeHead reads: numbers in big endian in the order of the fields.
func (h *Head) Append(b []byte) []byte {
	flags := byte(0)
	if h.open {
		flags |= flagOpen
	}
	if h.incident.Drop {
		flags |= flagDrop
	}
	b = append(b, flags)
	for _, n := range [...]int64{h.at, h.slot, int64(math.Float64bits(h.sum))} {
		b = binary.BigEndian.AppendUint64(b, uint64(n))
	}
	for _, n := range [...]uint32{h.n, h.levels, h.scales, h.calm} {
		b = binary.BigEndian.AppendUint32(b, n)
	}
	float := func(v float32) { b = binary.BigEndian.AppendUint32(b, math.Float32bits(v)) }
	for _, v := range h.level {
		float(v[0])
		float(v[1])
	}
	for _, v := range h.scale {
		float(v)
	}
	for _, v := range h.last {
		float(v.z)
		float(v.observed)
		float(v.bounded)
		float(v.expected)
	}
	in := &h.incident
	for _, n := range [...]uint64{uint64(in.Start), uint64(in.Last), math.Float64bits(in.Z), math.Float64bits(in.Observed), math.Float64bits(in.Expected), math.Float64bits(in.Low), math.Float64bits(in.High)} {
		b = binary.BigEndian.AppendUint64(b, n)
	}
	return append(b, byte(in.Window))
}

var errHead = errors.New("not a series of a KPI")

// DecodeHead reads what Append wrote.
func DecodeHead(b []byte) (Head, error) {
	var h Head
	if len(b) != HeadBytes || b[0] >= flagsEnd {
		return h, errHead
	}
	h.open, h.incident.Drop = b[0]&flagOpen != 0, b[0]&flagDrop != 0
	b = b[1:]
	bad := false
	u64 := func() uint64 {
		v := binary.BigEndian.Uint64(b)
		b = b[8:]
		return v
	}
	u32 := func() uint32 {
		v := binary.BigEndian.Uint32(b)
		b = b[4:]
		return v
	}
	float := func() float32 {
		v := math.Float32frombits(u32())
		bad = bad || v != v
		return v
	}
	double := func() float64 {
		v := math.Float64frombits(u64())
		bad = bad || v != v
		return v
	}
	h.at, h.slot, h.sum = int64(u64()), int64(u64()), double()
	h.n, h.levels, h.scales, h.calm = u32(), u32(), u32(), u32()
	for i := range h.level {
		h.level[i] = [2]float32{float(), float()}
	}
	for i := range h.scale {
		h.scale[i] = float()
	}
	for i := range h.last {
		h.last[i] = minute{float(), float(), float(), float()}
	}
	in := &h.incident
	in.Start, in.Last = int64(u64()), int64(u64())
	in.Z, in.Observed, in.Expected, in.Low, in.High = double(), double(), double(), double(), double()
	in.Window = int(b[0])
	if bad || h.at < 0 || in.Start < 0 || in.Window > lastMinutes || h.open && in.Window == 0 {
		return Head{}, errHead
	}
	return h, nil
}
