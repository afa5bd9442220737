package event

import (
	"encoding/binary"
	"errors"
	"math/big"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
	"pgregory.net/rapid"
)

func TestAmountsAreReadFromTheirDigits(t *testing.T) {
	for in, want := range map[string]int64{
		"0": 0, "-0": 0, "0.0": 0, "129.90": 129_900_000, "129.9000000000": 129_900_000, "0.000001": 1, "-3": -3_000_000, "+3": 3_000_000,
		"1e2": 100_000_000, "1.5E-3": 1500, "999999999999.999999": 999_999_999_999_999_999, "1000000000e2": 100_000_000_000 * 1_000_000, "00012": 12_000_000,
		"9007199254.740993": 9_007_199_254_740_993, // one above what a float64 holds
		".5":                500_000, "5.": 5_000_000,
	} {
		got, err := ParseAmount(in)
		if err != nil || got != want {
			t.Errorf("ParseAmount(%q) = %d, %v; want %d", in, got, err, want)
		}
	}
	for _, in := range []string{
		"", "-", ".", "e5", "1e", "1e999999", "NaN", "Infinity", "1,5", "0x10", "1.2.3", "0.0000001", "1000000000000", "-1000000000000", "1e12",
		"1234567890123456789", " 1", strings.Repeat("9", 65),
	} {
		if got, err := ParseAmount(in); !errors.Is(err, ErrAmount) {
			t.Errorf("ParseAmount(%q) = %d, %v; want ErrAmount", in, got, err)
		}
	}
}

func TestAmountsRoundTripThroughText(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := rapid.Int64Range(-MaxAmount+1, MaxAmount-1).Draw(t, "micros")
		s := FormatAmount(v)
		got, err := ParseAmount(s)
		if err != nil || got != v {
			t.Fatalf("%d is written %q and read %d, %v", v, s, got, err)
		}
		r, ok := new(big.Rat).SetString(s)
		if !ok || r.Cmp(big.NewRat(v, MicrosPerUnit)) != 0 {
			t.Fatalf("%q is not %d/10^6", s, v)
		}
	})
}

func TestSumsAreExactBeyond64Bits(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var s Sum
		want := new(big.Int)
		for _, v := range rapid.SliceOf(rapid.Int64()).Draw(t, "amounts") {
			s = s.AddMicros(v)
			want.Add(want, big.NewInt(v))
		}
		if s.Big().Cmp(want) != 0 {
			t.Fatalf("sum %s, want %s", s.Big(), want)
		}
		if v, ok := s.Int64(); ok != want.IsInt64() || ok && v != want.Int64() {
			t.Fatalf("Int64() = %d, %v for %s", v, ok, want)
		}
	})
}

// The client library's own partitioner is the oracle: a producer of another make must agree on a key's partition.
func TestPartitionIsTheOneKafkaClientsChoose(t *testing.T) {
	p := kgo.StickyKeyPartitioner(nil).ForTopic("t")
	rapid.Check(t, func(t *rapid.T) {
		key := rapid.SliceOfN(rapid.Byte(), 1, 40).Draw(t, "key")
		n := rapid.IntRange(1, 200).Draw(t, "partitions")
		if got, want := int(Partition(key, int32(n))), p.Partition(&kgo.Record{Key: key}, n); got != want {
			t.Fatalf("partition %d, the client chooses %d", got, want)
		}
	})
}

func TestKeyIsTheFirstPresentIdentity(t *testing.T) {
	for _, c := range []struct {
		e    Event
		want string
	}{
		{Event{Tenant: "t", ID: "e1", Name: "page_view", VisitorID: "v1", UserID: "u1", OrderID: "o1"}, "t\x1fv\x1fv1"},
		{Event{Tenant: "t", ID: "e1", Name: "page_view", UserID: "u1", OrderID: "o1"}, "t\x1fu\x1fu1"},
		{Event{Tenant: "t", ID: "e1", Name: "purchase", OrderID: "o1"}, "t\x1fo\x1fo1"},
		{Event{Tenant: "t", ID: "e1", Name: "x"}, "t\x1fe\x1fe1"},
		{Event{Tenant: "t", ID: "e1", Name: NameInventoryChange, VisitorID: "v1", ItemID: "p1"}, "t\x1fi\x1fp1"},
	} {
		if got := string(c.e.AppendKey(nil)); got != c.want {
			t.Errorf("key %q, want %q", got, c.want)
		}
	}
}

func TestRowHashIsTheDocumentedOne(t *testing.T) {
	v := int64(-5_000_000)
	e := Event{Tenant: "default", ID: "e-1", Name: "refund", OccurredAt: 1_772_366_400_123_000, Value: &v, Currency: "USD", OrderID: "o-1"}
	// XXH64("default\x1fe-1\x1frefund\x1f1772366400123000\x1f-5000000\x1fUSD\x1fo-1"), computed with Python's xxhash.
	const want = -6261663919188759884
	if got := e.ComputeRowHash(); got != want {
		t.Errorf("row hash %d, want %d", got, want)
	}
	var c Checksum
	c.Add(-1)
	c.Add(1)
	if c != (Checksum{2, 0x100000000, 0xffffffff}) {
		t.Errorf("checksum %+v", c)
	}
}

func TestDerivedIDsAreStableUUIDsOfVersion8(t *testing.T) {
	a, b, c := DeriveID("t", "s", []byte("x"), 0), DeriveID("t", "s", []byte("x"), 0), DeriveID("t", "s", []byte("x"), 1)
	if a != b || a == c {
		t.Errorf("%s %s %s: equal input must give equal ids, another ordinal another", a, b, c)
	}
	if a[14] != '8' || !strings.ContainsRune("89ab", rune(a[19])) {
		t.Errorf("%s is no UUIDv8", a)
	}
	if FailedID("t", "s", "r", []byte("p")) == FailedID("t", "s", "rp", nil) {
		t.Error("the parts of a failed id are not separated")
	}
}

func TestTimes(t *testing.T) {
	const now = int64(1_772_366_400_000_000)
	day := MaxAhead.Microseconds()
	for _, c := range []struct {
		occurred int64
		ok       bool
		lane     Lane
	}{
		{now, true, Live}, {now - day, true, Live}, {now - day - 1, true, Replay}, {MinOccurred, true, Replay}, {MinOccurred - 1, false, Replay}, {now + day, true, Live}, {now + day + 1, false, Live},
	} {
		if TimeOK(c.occurred, now) != c.ok || LaneOf(c.occurred, now) != c.lane {
			t.Errorf("occurred %d: ok %v lane %v", c.occurred-now, TimeOK(c.occurred, now), LaneOf(c.occurred, now))
		}
	}
	if WatermarkTime(now+day, now) != now {
		t.Error("a clock a day ahead moves the watermark")
	}
}

func TestHeadersRoundTrip(t *testing.T) {
	if us, ok := ParseReceived(AppendReceived(nil, -5)); !ok || us != -5 {
		t.Error(us, ok)
	}
	if i, s, ok := ParseGateway(AppendGateway(nil, 7, 1<<40)); !ok || i != 7 || s != 1<<40 {
		t.Error(i, s, ok)
	}
	if _, ok := ParseReceived(binary.BigEndian.AppendUint32(nil, 1)); ok {
		t.Error("four bytes accepted")
	}
}

func TestNames(t *testing.T) {
	for _, n := range []string{"page_view", "$pageview", "Product Viewed", "a", "_x", "app.open:v2/x"} {
		if !WellFormedName(n) {
			t.Errorf("%q refused", n)
		}
	}
	for _, n := range []string{"", "1x", " x", "x ", "a  b", "a\x1fb", "ä", strings.Repeat("a", 101), "-a"} {
		if WellFormedName(n) {
			t.Errorf("%q accepted", n)
		}
	}
	for _, c := range Categories() {
		if got, ok := ParseCategory(c.String()); !ok || got != c {
			t.Errorf("category %s does not parse", c)
		}
		if _, ok := TopicNamed(c.RawTopic()); !ok {
			t.Errorf("no topic %s", c.RawTopic())
		}
	}
}

func TestProductIDsAreDistinctInOrder(t *testing.T) {
	e := Event{Items: []Item{{ItemID: "b"}, {ItemID: "a"}, {ItemID: "b"}, {}}}
	if got := strings.Join(e.ProductIDs(nil), ","); got != "b,a" {
		t.Error(got)
	}
	e = Event{ItemID: "p"}
	if got := strings.Join(e.ProductIDs(nil), ","); got != "p" {
		t.Error(got)
	}
}
