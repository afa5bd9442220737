package activities

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/klauspost/compress/gzip"
	"github.com/twmb/franz-go/pkg/kgo"

	"millrace/event"
	"millrace/event/schema"
	"millrace/features/demand"
	"millrace/internal/failpoint"
)

var errForecastLost = errors.New("the folder of the forecast has lost a file: is batch.dir of all workers the same folder? A run with another \"run\" fits again")

// forecastFolder holds one fit: plan.json, result.json and the products, one a line.
type forecastFolder struct{ planFolder }

// forecastFolderName is of hex digits: a tenant's name may hold anything.
func forecastFolderName(tenant string) string { return "forecast-" + digestOf(tenant)[:16] }

func openForecast(dir, tenant, key string) (forecastFolder, error) {
	f, err := openPlan(dir, forecastFolderName(tenant), key)
	return forecastFolder{f}, err
}

func (f forecastFolder) planned() (forecastPlan, error) {
	var p forecastPlan
	there, err := f.read("plan.json", &p)
	if err == nil && !there {
		err = fmt.Errorf("plan.json: %w", errForecastLost)
	}
	return p, err
}

const productsFile = "products.ndjson.gz"

// writeProducts puts the products in place in one step.
func (f forecastFolder) writeProducts(products []productForecast) error {
	tmp, err := os.CreateTemp(f.path, productsFile+".*.new")
	if err != nil {
		return fmt.Errorf("writing forecasts: %w", err)
	}
	buf := bufio.NewWriterSize(tmp, 1<<20)
	zip := gzip.NewWriter(buf)
	enc := json.NewEncoder(zip)
	for i := range products {
		if err = enc.Encode(&products[i]); err != nil {
			break
		}
	}
	err = errors.Join(err, zip.Close(), buf.Flush())
	if err == nil {
		err = tmp.Sync()
	}
	err = errors.Join(err, tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), filepath.Join(f.path, productsFile))
	}
	if err != nil {
		return fmt.Errorf("writing forecasts: %w", errors.Join(err, os.Remove(tmp.Name())))
	}
	return nil
}

// products calls each with up to n products at a time.
func (f forecastFolder) products(n int, each func([]productForecast) error) error {
	file, err := os.Open(filepath.Join(f.path, productsFile))
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s: %w", productsFile, errForecastLost)
	}
	if err != nil {
		return fmt.Errorf("reading forecasts: %w", err)
	}
	defer func() { _ = file.Close() }() // only read
	zip, err := gzip.NewReader(bufio.NewReaderSize(file, 1<<20))
	if err != nil {
		return fmt.Errorf("reading forecasts: %w", err)
	}
	dec := json.NewDecoder(zip)
	batch := make([]productForecast, 0, n)
	for {
		var p productForecast
		err := dec.Decode(&p)
		if err == nil {
			if batch = append(batch, p); len(batch) < n {
				continue
			}
		} else if !errors.Is(err, io.EOF) {
			return fmt.Errorf("reading forecasts: %w", err)
		}
		if len(batch) > 0 {
			if err := each(batch); err != nil {
				return err
			}
		}
		if err != nil {
			return nil
		}
		batch = batch[:0]
	}
}

const publishBatch = 500

// publish hands the models to the stream and writes the tables.
func (t *Forecast) publish(ctx context.Context, in ForecastInput, progress func(rows int64)) (ForecastPublished, error) {
	f, err := openForecast(t.dir, in.Input.Tenant, in.Key)
	if err != nil {
		return ForecastPublished{}, err
	}
	p, err := f.planned()
	if err != nil {
		return ForecastPublished{}, err
	}
	var out ForecastPublished
	if there, err := f.read("result.json", &out.ForecastOutput); err != nil || !there {
		return out, errors.Join(err, fmt.Errorf("result.json: %w", errForecastLost))
	}
	err = f.products(publishBatch, func(batch []productForecast) error {
		changes := make([]event.ProductChange, 0, len(batch))
		for _, one := range batch {
			body, err := json.Marshal(demand.Published{Version: out.Version, Model: one.Fitted.Model})
			if err != nil {
				return fmt.Errorf("forecast of product %s: %w", one.Product, err)
			}
			changes = append(changes, event.ProductChange{Tenant: in.Input.Tenant, ItemID: one.Product, Kind: event.ProductForecast, EventID: out.Version, OccurredAt: p.InputAt.UnixMicro(), Body: body})
		}
		if err := t.topic.Send(ctx, changes); err != nil {
			return fmt.Errorf("handing forecasts to the stream: %w", err)
		}
		out.Sent += int64(len(changes))
		progress(out.Sent)
		return nil
	})
	if err != nil {
		return out, err
	}
	failpoint.Hit(FailForecastSent)
	err = f.products(publishBatch, func(batch []productForecast) error {
		hours, err := t.note(ctx, in.Input.Tenant, p, out.ForecastOutput, batch)
		out.Hours += hours
		progress(out.Sent + out.Hours)
		return err
	})
	return out, err
}

// note writes the rows of the tables forecasts and demand_hourly. A row of a later snapshot wins over one of an earlier one, whichever is written last.
func (t *Forecast) note(ctx context.Context, tenant string, p forecastPlan, out ForecastOutput, batch []productForecast) (hours int64, err error) {
	version := uint64(max(0, p.InputAt.UnixMicro()))
	rows, err := t.runs.batch(ctx, "forecasts")
	if err != nil {
		return 0, fmt.Errorf("writing forecasts: %w", err)
	}
	defer func() { _ = rows.Close() }() // sent, or given up
	sold, err := t.runs.batch(ctx, "demand_hourly")
	if err != nil {
		return 0, fmt.Errorf("writing demand_hourly: %w", err)
	}
	defer func() { _ = sold.Close() }()
	for _, f := range batch {
		a, b := f.Fitted.Accuracy, f.Band
		err := rows.Append(tenant, f.Product, out.Version, f.State, string(f.Fitted.Model.Kind), a.MASE, a.NaiveMASE, a.MASEHourly, uint16(a.Days), a.Bias, f.Units, uint16(f.Days),
			f.Price, f.Currency, b.Elasticity.Value, b.Elasticity.Low, b.Elasticity.High, b.Current, b.Low, b.High, b.Floor, f.Reason, p.InputAt, out.FittedAt, version)
		if err != nil {
			return 0, fmt.Errorf("writing forecasts: %w", err)
		}
		for _, h := range f.Recent {
			if err := sold.Append(tenant, f.Product, hourTime(h.Hour), h.Units, version); err != nil {
				return 0, fmt.Errorf("writing demand_hourly: %w", err)
			}
			hours++
		}
	}
	if err := rows.Send(); err != nil {
		return 0, fmt.Errorf("writing forecasts: %w", err)
	}
	if hours > 0 {
		if err := sold.Send(); err != nil {
			return 0, fmt.Errorf("writing demand_hourly: %w", err)
		}
	}
	return hours, nil
}

// ProductChanges is the topic rekey.product.
type ProductChanges struct {
	client *kgo.Client
	codecs *schema.Codecs
}

// NewProductChanges writes through a client that is idempotent with acks=all and partitions by key as Kafka's own do, as clients are by default.
func NewProductChanges(client *kgo.Client, codecs *schema.Codecs) *ProductChanges {
	return &ProductChanges{client, codecs}
}

// Send implements ProductTopic.
func (t *ProductChanges) Send(ctx context.Context, changes []event.ProductChange) error {
	records := make([]*kgo.Record, 0, len(changes))
	for i := range changes {
		value, err := t.codecs.Append(nil, event.TopicRekeyProduct, &changes[i])
		if err != nil {
			return err
		}
		records = append(records, &kgo.Record{Topic: event.TopicRekeyProduct, Key: changes[i].AppendKey(nil), Value: value})
	}
	return t.client.ProduceSync(ctx, records...).FirstErr()
}
