package live

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"pgregory.net/rapid"

	"millrace/event"
	"millrace/event/schema"
)

func client(t testing.TB) *redis.Client {
	m := miniredis.NewMiniRedis()
	if err := m.Start(); err != nil {
		t.Fatal(err)
	}
	rdb := redis.NewClient(&redis.Options{Addr: m.Addr()})
	t.Cleanup(func() { _ = rdb.Close(); m.Close() }) // the server goes anyway
	return rdb
}

func TestTheNewestVersionWinsInAnyOrderOfDelivery(t *testing.T) {
	rdb := client(t)
	rapid.Check(t, func(rt *rapid.T) {
		n := rapid.IntRange(1, 30).Draw(rt, "writes")
		key := "x:{t}:" + rapid.StringMatching(`[a-z]{12}`).Draw(rt, "key")
		writes := make([]Write, n)
		var newest Version
		for i := range writes {
			v := Version{Epoch: uint32(rapid.IntRange(0, 2).Draw(rt, "epoch")), Generation: uint16(rapid.IntRange(0, 300).Draw(rt, "generation")), Offset: rapid.Int64Range(0, 1<<48-1).Draw(rt, "offset")}
			writes[i] = Write{Key: key, Field: "f", Version: v, Value: v.append(nil), TTL: time.Minute}
			if i == 0 || string(v.append(nil)) > string(newest.append(nil)) {
				newest = v
			}
		}
		for range 2 { // delivered twice, in two orders
			rand.Shuffle(n, func(i, j int) { writes[i], writes[j] = writes[j], writes[i] })
			if _, err := Put(t.Context(), rdb, writes); err != nil {
				rt.Fatal(err)
			}
		}
		got, err := rdb.HGet(t.Context(), key, "f").Result()
		if err != nil {
			rt.Fatal(err)
		}
		if got[versionBytes:] != string(newest.append(nil)) {
			rt.Fatalf("holds %s, newest is %s", got, newest.append(nil))
		}
	})
}

func TestVersionsSortAsTheyCount(t *testing.T) {
	ordered := []Version{{}, {Offset: 1}, {Offset: 255}, {Offset: 1<<48 - 1}, {Generation: 1}, {Generation: 256, Offset: 3}, {Epoch: 1}, {Epoch: 1 << 31}}
	for i := 1; i < len(ordered); i++ {
		a, b := string(ordered[i-1].append(nil)), string(ordered[i].append(nil))
		if a >= b || len(b) != versionBytes {
			t.Errorf("%q is not before %q", a, b)
		}
	}
}

func TestAWriteSurvivesAFlushedScriptCache(t *testing.T) {
	rdb := client(t)
	for i := range int64(2) {
		if err := rdb.ScriptFlush(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
		n, err := Put(t.Context(), rdb, []Write{{Key: "a:{t}", Field: "f", Version: Version{Offset: i}, TTL: time.Minute}})
		if err != nil || n != 1 {
			t.Fatalf("applied %d, %v", n, err)
		}
	}
}

func TestKPIsAreReadBackByWindow(t *testing.T) {
	rdb := client(t)
	codecs, err := schema.NewCodecs()
	if err != nil {
		t.Fatal(err)
	}
	codecs.AssignLocal()
	const start = 1_772_366_400_000_000
	var writes []Write
	for part := range int32(600) { // more than one script call
		p := event.KPIPartial{Family: "shop", Grain: "1m", Tenant: "t", WindowStart: start, Currency: "USD", KafkaPartition: part, Orders: 2, Revenue: event.SumOf(5)}
		value, err := codecs.Append(nil, event.TopicKPIPartial, &p)
		if err != nil {
			t.Fatal(err)
		}
		w, ok := KPIWrite(&p, Version{Offset: int64(part)}, value)
		if !ok {
			t.Fatal("not kept live")
		}
		writes = append(writes, w)
	}
	if n, err := Put(t.Context(), rdb, writes); err != nil || n != 600 {
		t.Fatalf("applied %d, %v", n, err)
	}
	got, err := KPIs(t.Context(), rdb, codecs, "t", "shop", "1m", []int64{start, start + 60e6})
	if err != nil || len(got) != 600 {
		t.Fatalf("%d partials, %v", len(got), err)
	}
	var orders int64
	for _, p := range got {
		orders += p.Orders
	}
	if orders != 1200 {
		t.Errorf("orders %d", orders)
	}
	if _, ok := KPIWrite(&event.KPIPartial{Family: "items", Grain: "1s"}, Version{}, nil); ok {
		t.Error("item rows by the second are kept live")
	}
}
