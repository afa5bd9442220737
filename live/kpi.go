package live

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"millrace/event"
	"millrace/event/schema"
)

// KPI rows live in one hash per (tenant, family, grain, window): k1:{tenant}:family:grain:window_start_seconds. A field is one partial:
// currency, country, device, product, item category and source partition, separated by 0x1F; its value is the partial's Avro record as on kpi.partial.
const kpiPrefix = "k1:{"

// kpiTTL is how long the windows of a grain stay in Redis after their last change; ClickHouse keeps them all.
func kpiTTL(grain string) time.Duration {
	switch grain {
	case "1s":
		return 15 * time.Minute
	case "1m":
		return 6 * time.Hour
	case "1h":
		return 4 * 24 * time.Hour
	default:
		return 40 * 24 * time.Hour
	}
}

// KPIKey is the key of one window.
func KPIKey(tenant, family, grain string, windowStart int64) string {
	return kpiPrefix + tenant + "}:" + family + ":" + grain + ":" + strconv.FormatInt(windowStart/1e6, 10)
}

// KPIWrite makes the versioned write of a partial; value is its record as on kpi.partial. Item rows by the second are not kept live: ok is false.
func KPIWrite(p *event.KPIPartial, v Version, value []byte) (w Write, ok bool) {
	if p.Family == "items" && p.Grain == "1s" {
		return Write{}, false
	}
	sep := string(rune(event.Sep))
	return Write{
		Key:     KPIKey(p.Tenant, p.Family, p.Grain, p.WindowStart),
		Field:   strings.Join([]string{p.Currency, p.Country, p.Device, p.ProductID, p.ItemCategory, strconv.Itoa(int(p.KafkaPartition))}, sep),
		Version: v,
		Value:   value,
		TTL:     kpiTTL(p.Grain),
	}, true
}

// KPIs reads the partials of the windows that start at the given times (µs), in one round trip. Windows that nobody wrote give nothing.
func KPIs(ctx context.Context, rdb redis.UniversalClient, codecs *schema.Codecs, tenant, family, grain string, starts []int64) ([]event.KPIPartial, error) {
	if len(starts) == 0 {
		return nil, nil
	}
	pipe := rdb.Pipeline()
	vals := make([]*redis.StringSliceCmd, len(starts))
	for i, s := range starts {
		vals[i] = pipe.HVals(ctx, KPIKey(tenant, family, grain, s))
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, fmt.Errorf("reading %d KPI windows: %w", len(starts), err)
	}
	var out []event.KPIPartial
	for _, v := range vals {
		for _, one := range v.Val() {
			if len(one) < versionBytes {
				return nil, fmt.Errorf("KPI value of %d bytes has no version", len(one))
			}
			var p event.KPIPartial
			if err := codecs.Decode(ctx, event.TopicKPIPartial, []byte(one[versionBytes:]), &p); err != nil {
				return nil, err
			}
			out = append(out, p)
		}
	}
	return out, nil
}
