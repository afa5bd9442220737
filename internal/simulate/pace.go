package simulate

import (
	"math"
	"time"
)

// pace is the shop's clock: when each event happens, counted from the start of the run. It depends on the options alone.
type pace struct {
	at       float64 // ns since the start: when the next event happens
	mean     float64 // ns between events at the start
	diurnal  float64 // amplitude of the day's wave, 0 for none
	phase    float64 // of the day at the start, in [0, 1)
	spike    float64
	every    float64 // ns from the start of a spike to that of the next
	length   float64 // ns
	first    float64 // ns to the first spike
	step     float64 // mean with the wave of the day, renewed now and then
	stepTill float64
}

func newPace(o Options) pace {
	start := o.Start.UTC()
	return pace{
		mean: 1e9 / o.tempo(), diurnal: o.Diurnal,
		phase: float64(start.Sub(start.Truncate(24*time.Hour))) / float64(24*time.Hour),
		spike: o.Spike, every: float64(o.SpikeEvery), length: float64(o.SpikeFor), first: float64(o.SpikeAfter),
	}
}

// day is the wave of the day: least at 4:00 UTC, greatest at 16:00.
func (p *pace) day(at float64) float64 {
	return 1 - p.diurnal*math.Cos(2*math.Pi*(p.phase+at/float64(24*time.Hour)-4.0/24))
}

// tick goes to the next event. The rate asked for is that at the start; over hours it follows the day.
func (p *pace) tick() {
	if p.at >= p.stepTill {
		p.step = p.mean * p.day(0) / p.day(p.at)
		p.stepTill = p.at + float64(time.Second)
	}
	step := p.step
	if p.spiking() {
		step /= p.spike
	}
	p.at += step
}

func (p *pace) spiking() bool {
	if p.spike <= 1 || p.at < p.first {
		return false
	}
	return math.Mod(p.at-p.first, p.every) < p.length
}
