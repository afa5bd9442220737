package workers

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"millrace/internal/fault"
	"millrace/lakehouse"
)

// Endpoints tells other programs where everything is: DIR/endpoints.json, mode 0600. Its shape is a promise; a part that is not running is an empty string.
type Endpoints struct {
	Version        int                `json:"version"`
	Gateway        string             `json:"gateway"`
	WriteKey       string             `json:"write_key"`
	API            string             `json:"api"`
	Dashboard      string             `json:"dashboard"`
	Metrics        []string           `json:"metrics"`
	Kafka          KafkaEndpoint      `json:"kafka"`
	SchemaRegistry string             `json:"schema_registry"`
	Redis          string             `json:"redis"`
	ClickHouse     ClickHouseEndpoint `json:"clickhouse"`
	Iceberg        IcebergEndpoint    `json:"iceberg"`
	BigQuery       BigQueryEndpoint   `json:"bigquery"`
	Temporal       TemporalEndpoint   `json:"temporal"`
	PIDs           map[string]int     `json:"pids"`
}

// KafkaEndpoint is the broker.
type KafkaEndpoint struct {
	Brokers string `json:"brokers"`
}

// ClickHouseEndpoint is the ClickHouse server.
type ClickHouseEndpoint struct {
	HTTP     string `json:"http"`
	Native   string `json:"native"`
	User     string `json:"user"`
	Password string `json:"password"`
	Database string `json:"database"`
}

// IcebergEndpoint is the catalog.
type IcebergEndpoint struct {
	CatalogURI  string `json:"catalog_uri"`
	CatalogName string `json:"catalog_name"`
	Warehouse   string `json:"warehouse"`
	Namespace   string `json:"namespace"`

	// What else is configured to reach them. Secrets are here as they are there.
	CatalogPassword   string            `json:"catalog_password,omitempty"`
	CatalogToken      string            `json:"catalog_token,omitempty"`
	CatalogWarehouse  string            `json:"catalog_warehouse,omitempty"`
	CatalogProperties map[string]string `json:"catalog_properties,omitempty"`
	Store             map[string]string `json:"store,omitempty"`
}

// IcebergEndpointOf is where a configured lakehouse is.
func IcebergEndpointOf(c lakehouse.Config) IcebergEndpoint {
	return IcebergEndpoint{
		CatalogURI: c.CatalogURI, CatalogName: c.CatalogName, Warehouse: c.Warehouse, Namespace: c.Namespace,
		CatalogPassword: c.CatalogPassword, CatalogToken: c.CatalogToken, CatalogWarehouse: c.CatalogWarehouse, CatalogProperties: c.CatalogProperties, Store: c.Store,
	}
}

// Fill sets the lakehouse to be this one.
func (e IcebergEndpoint) Fill(c *lakehouse.Config) {
	c.CatalogURI, c.CatalogName, c.Warehouse, c.Namespace = e.CatalogURI, e.CatalogName, e.Warehouse, e.Namespace
	c.CatalogPassword, c.CatalogToken, c.CatalogWarehouse, c.CatalogProperties, c.Store = e.CatalogPassword, e.CatalogToken, e.CatalogWarehouse, e.CatalogProperties, e.Store
}

// BigQueryEndpoint is the BigQuery dataset.
type BigQueryEndpoint struct {
	Endpoint string `json:"endpoint"` // of an emulator; empty where it is Google's, or none
	GRPC     string `json:"grpc"`     // its host:port of the Storage APIs
	Project  string `json:"project"`  // empty: none
	Dataset  string `json:"dataset"`
}

// TemporalEndpoint is the Temporal server.
type TemporalEndpoint struct {
	Address   string `json:"address"`
	Namespace string `json:"namespace"`
	UI        string `json:"ui"`
}

// EndpointsFile is the file's path within a data directory.
func EndpointsFile(data string) string { return filepath.Join(data, "endpoints.json") }

// LoadEndpoints reads the file of a data directory.
func LoadEndpoints(data string) (Endpoints, error) {
	var e Endpoints
	b, err := os.ReadFile(EndpointsFile(data))
	if errors.Is(err, fs.ErrNotExist) {
		return e, fault.Newf("MR-CLI-003", "%s does not exist", EndpointsFile(data))
	}
	if err == nil {
		err = json.Unmarshal(b, &e)
	}
	if err != nil {
		return e, fmt.Errorf("reading %s: %w", EndpointsFile(data), err)
	}
	return e, nil
}

// Save writes the file if it would change, in one step.
func (e Endpoints) Save(data string) error {
	b, err := json.MarshalIndent(e, "", "  ")
	if err != nil {
		return fmt.Errorf("writing endpoints: %w", err)
	}
	b = append(b, '\n')
	path := EndpointsFile(data)
	if have, err := os.ReadFile(path); err == nil && bytes.Equal(have, b) {
		return nil
	}
	tmp := path + ".new"
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return fmt.Errorf("writing endpoints: %w", err)
	}
	if err := os.Rename(tmp, path); err != nil {
		return fmt.Errorf("writing endpoints: %w", err)
	}
	return nil
}

// Fill sets the addresses that are not configured from what runs on the data directory.
func (c *Config) Fill(e Endpoints) {
	if len(c.Kafka.Brokers) == 0 && e.Kafka.Brokers != "" {
		c.Kafka.Brokers = []string{e.Kafka.Brokers}
	}
	if c.SchemaRegistry.URL == "" {
		c.SchemaRegistry.URL = e.SchemaRegistry
	}
	if len(c.ClickHouse.Addr) == 0 && e.ClickHouse.Native != "" {
		c.ClickHouse.Addr, c.ClickHouse.User, c.ClickHouse.Password, c.ClickHouse.Database = []string{e.ClickHouse.Native}, e.ClickHouse.User, e.ClickHouse.Password, e.ClickHouse.Database
	}
	if len(c.Redis.Addr) == 0 && e.Redis != "" {
		c.Redis.Addr = []string{e.Redis}
	}
	if c.Iceberg.CatalogURI == "" && e.Iceberg.CatalogURI != "" {
		e.Iceberg.Fill(&c.Iceberg)
	}
	if !c.BigQuery.Enabled() && e.BigQuery.Endpoint != "" {
		c.BigQuery.Project, c.BigQuery.Dataset, c.BigQuery.Endpoint, c.BigQuery.GRPCEndpoint = e.BigQuery.Project, e.BigQuery.Dataset, e.BigQuery.Endpoint, e.BigQuery.GRPC
	}
	if c.Temporal.Address == "" {
		c.Temporal.Address, c.Temporal.Namespace, c.Temporal.UI = e.Temporal.Address, e.Temporal.Namespace, e.Temporal.UI
	}
}
