package hot

import (
	"errors"
	"fmt"
	"time"

	"millrace/internal/telemetry"
)

// Config of the hot topology.
type Config struct {
	Dir         string            `koanf:"dir" desc:"local folder for the closed buckets of the dedup index; what is in it is rebuilt from Kafka at each start; '' means stream in the data directory"`
	DedupWindow time.Duration     `koanf:"dedup_window" desc:"how long after an event's arrival a copy of it is recognised; not below spool_max_age"`
	SpoolMaxAge time.Duration     `koanf:"spool_max_age" desc:"the gateways' spool.max_age: how much later than the first a copy may arrive"`
	KPILateness time.Duration     `koanf:"kpi_lateness" desc:"how long after its window's end, in event time, a live event still corrects its KPIs; later ones go to kpi.late"`
	KPIEvery    time.Duration     `koanf:"kpi_every" desc:"least time between two emissions of a KPI window that is not closing"`
	Sessions    SessionConfig     `koanf:"sessions"`
	Carts       CartConfig        `koanf:"carts"`
	Anomaly     AnomalyConfig     `koanf:"anomaly"`
	Products    ProductsConfig    `koanf:"products"`
	Recommend   RecommendConfig   `koanf:"recommend"`
	Fraud       FraudConfig       `koanf:"fraud"`
	Model       ModelConfig       `koanf:"model"`
	Tracer      *telemetry.Tracer `koanf:"-"` // nil: no traces
	LedgerIdle  time.Duration     `koanf:"ledger_idle" desc:"a range of control totals ends after this much silence of its topic; with traffic it ends at each full minute of arrival"`
}

// DefaultConfig has everything but Dir, which whoever knows the data directory is to set.
func DefaultConfig() Config {
	return Config{DedupWindow: 24 * time.Hour, SpoolMaxAge: 6 * time.Hour, KPILateness: time.Hour, KPIEvery: time.Second, LedgerIdle: 5 * time.Second, Sessions: DefaultSessionConfig(), Carts: DefaultCartConfig(), Anomaly: DefaultAnomalyConfig(), Products: DefaultProductsConfig(), Recommend: DefaultRecommendConfig(), Fraud: DefaultFraudConfig(), Model: DefaultModelConfig()}
}

// Validate reports every problem. An empty Dir is none yet: Topology refuses it.
func (c Config) Validate() error {
	var errs []error
	between := func(field string, v, lo, hi time.Duration) {
		if v < lo || v > hi {
			errs = append(errs, fmt.Errorf("%s: %s is not between %s and %s", field, v, lo, hi))
		}
	}
	between("spool_max_age", c.SpoolMaxAge, 0, 7*24*time.Hour)
	between("dedup_window", c.DedupWindow, max(bucketSize, c.SpoolMaxAge), 7*24*time.Hour)
	between("kpi_lateness", c.KPILateness, 0, 24*time.Hour)
	between("kpi_every", c.KPIEvery, 10*time.Millisecond, time.Minute)
	between("ledger_idle", c.LedgerIdle, 100*time.Millisecond, time.Minute)
	return errors.Join(append(errs, c.Sessions.Validate(), prefixed("carts", c.Carts.Validate()), prefixed("anomaly", c.Anomaly.Validate()), prefixed("products", c.Products.Validate()), prefixed("recommend", c.Recommend.Validate()), prefixed("fraud", c.Fraud.Validate()), prefixed("model", c.Model.Validate()))...)
}
