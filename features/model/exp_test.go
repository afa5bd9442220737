package model

import (
	"encoding/binary"
	"math"
	"math/big"
	"os"
	"testing"

	"pgregory.net/rapid"
)

func TestTheTableOfPowersIsWhatItSays(t *testing.T) {
	root := big.NewFloat(2).SetPrec(400)
	for range 7 { // 2^(1/128)
		root.Sqrt(root)
	}
	power := big.NewFloat(1).SetPrec(400)
	for k := range 128 {
		h, _ := power.Float64()
		rest := new(big.Float).SetPrec(400).Quo(power, big.NewFloat(h).SetPrec(400))
		tail, _ := rest.Sub(rest, big.NewFloat(1)).Float64()
		if got := expTable[2*k]; got != math.Float64bits(tail) && k > 0 {
			t.Errorf("T of %d is %x, computed %x", k, got, math.Float64bits(tail))
		}
		if got, want := expTable[2*k+1], math.Float64bits(h)-uint64(k)<<45; got != want {
			t.Errorf("H of %d is %x, computed %x", k, got, want)
		}
		power.Mul(power, root)
	}
}

func TestExpIsThatOfGlibc(t *testing.T) {
	// Pairs of x and exp(x) from glibc 2.36, x86-64 with FMA.
	text, err := os.ReadFile("testdata/exp_glibc.bin")
	if err != nil || len(text) == 0 || len(text)%16 != 0 {
		t.Fatal(len(text), err)
	}
	gos := 0
	for i := 0; i < len(text); i += 16 {
		x, want := math.Float64frombits(binary.LittleEndian.Uint64(text[i:])), math.Float64frombits(binary.LittleEndian.Uint64(text[i+8:]))
		if got := exp(x); got != want {
			t.Errorf("exp(%v) = %v, glibc has %v", x, got, want)
		}
		if math.Exp(x) != want {
			gos++
		}
	}
	t.Logf("%d values; math.Exp differs in %d of them", len(text)/16, gos)
}

func TestExpIsWithinAnUlpOfGos(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		x := rapid.Float64().Draw(rt, "x")
		got, want := exp(x), math.Exp(x)
		if math.IsNaN(x) && math.IsNaN(got) {
			return
		}
		if got != want && math.Nextafter(want, got) != got {
			rt.Fatalf("exp(%v) = %v, math.Exp has %v", x, got, want)
		}
	})
}
