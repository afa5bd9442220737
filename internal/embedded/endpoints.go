package embedded

// Endpoints are the addresses of the servers, started here or configured. An
// empty string is a server that is not there.
type Endpoints struct {
	Kafka      string // brokers, host:port
	ClickHouse ClickHouse
	Redis      string // host:port
	Temporal   Temporal
	BigQuery   BigQuery
}

// Temporal is where a Temporal server is.
type Temporal struct {
	Address   string `json:"address"` // host:port of the frontend
	Namespace string `json:"namespace"`
	UI        string `json:"ui"` // http://host:port
	Metrics   string `json:"-"`  // http://host:port/metrics
}
