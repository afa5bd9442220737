package bigquery

import (
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// Config is how to reach BigQuery and what a load may cost. Without a project there is no BigQuery.
type Config struct {
	Project        string        `koanf:"project" desc:"Google Cloud project that holds the dataset and pays for the jobs; empty: nothing is loaded"`
	Dataset        string        `koanf:"dataset" desc:"dataset of the tables"`
	WorkDataset    string        `koanf:"work_dataset" desc:"dataset of staged rows and of the positions of loads; empty: the dataset's name and _load"`
	Location       string        `koanf:"location" desc:"region or multi-region of both datasets and of all jobs, as europe-west3 or EU; empty: as the service decides"`
	Endpoint       string        `koanf:"endpoint" desc:"address of an emulator, as http://127.0.0.1:9050, which is asked without credentials; empty: Google's"`
	GRPCEndpoint   string        `koanf:"grpc_endpoint" desc:"the emulator's host:port of the Storage APIs, for clients that read endpoints.json"`
	Credentials    string        `koanf:"credentials" desc:"file with the key or configuration of a service account; empty: application default credentials"`
	CreateDatasets bool          `koanf:"create_datasets" desc:"create missing datasets; false where Terraform makes them"`
	Bucket         string        `koanf:"bucket" desc:"gs://bucket/prefix in the datasets' location through which rows are loaded that are in no file there; empty: they are uploaded with the jobs"`
	MaxBytesBilled int64         `koanf:"max_bytes_billed" desc:"bytes that one job may bill, by its dry run first and as a limit of the job"`
	Every          time.Duration `koanf:"every" desc:"how often each published table is loaded by schedule; 0: by the nightly pipeline and by hand only"`
	MinInterval    time.Duration `koanf:"min_interval" desc:"least time between two loads of a table"`
	PartBytes      int64         `koanf:"part_bytes" desc:"rows of about so many bytes in memory make one staged file"`
	MaxFiles       int           `koanf:"max_files" desc:"data files of a range that are loaded as they are; of more, uploaded one by one, the rows are written into larger ones"`
	JobTimeout     time.Duration `koanf:"job_timeout" desc:"after this a job is cancelled and made anew under another id"`
}

// DefaultConfig is off: it has no project.
func DefaultConfig() Config {
	return Config{
		Dataset: "millrace", CreateDatasets: true, MaxBytesBilled: 1 << 40, MinInterval: 2 * time.Minute, PartBytes: 64 << 20, MaxFiles: 16, JobTimeout: 30 * time.Minute,
	}
}

// Enabled says whether there is a BigQuery.
func (c Config) Enabled() bool { return c.Project != "" }

// Work is the dataset of staged rows and positions.
func (c Config) Work() string {
	if c.WorkDataset != "" {
		return c.WorkDataset
	}
	return c.Dataset + "_load"
}

var (
	projectForm = regexp.MustCompile(`^([a-z][a-z0-9.-]*:)?[a-z][a-z0-9-]{1,62}$`)
	datasetForm = regexp.MustCompile(`^[A-Za-z0-9_]{1,1000}$`)
	bucketForm  = regexp.MustCompile(`^gs://[a-z0-9][a-z0-9._-]{1,220}(/[A-Za-z0-9._=/-]*)?$`)
)

// Validate reports every problem. A configuration without a project is right.
func (c Config) Validate() error {
	if !c.Enabled() {
		return nil
	}
	var errs []error
	bad := func(wrong bool, format string, a ...any) {
		if wrong {
			errs = append(errs, fmt.Errorf(format, a...))
		}
	}
	bad(!projectForm.MatchString(c.Project), "project: %q is no id of a project", c.Project)
	bad(!datasetForm.MatchString(c.Dataset), "dataset: %q is not made of letters, digits and _", c.Dataset)
	bad(!datasetForm.MatchString(c.Work()), "work_dataset: %q is not made of letters, digits and _", c.WorkDataset)
	bad(strings.EqualFold(c.Work(), c.Dataset), "work_dataset: is the dataset itself, whose readers would see half of a load")
	if c.Endpoint != "" {
		u, err := url.Parse(c.Endpoint)
		bad(err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https", "endpoint: %q is no URL as http://127.0.0.1:9050", c.Endpoint)
		bad(c.Credentials != "", "credentials: an endpoint is asked without credentials")
	}
	bad(c.Credentials != "" && !filepath.IsAbs(c.Credentials), "credentials: %q is no absolute path", c.Credentials)
	bad(c.Bucket != "" && !bucketForm.MatchString(c.Bucket), "bucket: %q is not of the form gs://bucket or gs://bucket/prefix", c.Bucket)
	bad(c.MaxBytesBilled < 10<<20, "max_bytes_billed: %d is below 10 MiB, the least that BigQuery bills", c.MaxBytesBilled)
	bad(c.Every != 0 && c.Every < 2*time.Minute, "every: %s is below 2m0s: a table takes 1,500 changes a day", c.Every)
	bad(c.MinInterval < 0 || c.MinInterval > 24*time.Hour, "min_interval: %s is not between 0s and 24h0m0s", c.MinInterval)
	bad(c.PartBytes < 1<<16 || c.PartBytes > 1<<30, "part_bytes: %d is not between 64 KiB and 1 GiB", c.PartBytes)
	bad(c.MaxFiles < 0 || c.MaxFiles > 10_000, "max_files: %d is not between 0 and 10000", c.MaxFiles)
	bad(c.JobTimeout < time.Second || c.JobTimeout > 6*time.Hour, "job_timeout: %s is not between 1s and 6h0m0s", c.JobTimeout)
	return errors.Join(errs...)
}
