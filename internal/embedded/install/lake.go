package install

import (
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"path/filepath"
	"strings"
)

// StoresSource is where the project's checkout keeps the module of the object stores for tests.
var StoresSource = filepath.Join("internal", "embedded", "stores")

// Stores builds the object stores for tests and returns the program. sourceDir is the project's checkout.
func (c *Cache) Stores(ctx context.Context, sourceDir string) (string, error) {
	const name = "stores"
	source := filepath.Join(sourceDir, StoresSource)
	key, err := sourceKey(source)
	if err != nil {
		return "", err
	}
	dir, err := c.once(ctx, name, key, func(ctx context.Context, dir string) error {
		return c.buildModule(ctx, name, "to build the object stores for tests", source, filepath.Join(dir, name))
	})
	return filepath.Join(dir, name), err
}

var (
	//go:embed icebergrest/pom.xml
	icebergPOM []byte
	//go:embed icebergrest/jars.sha256
	icebergJars string
)

// icebergKey digests the pinned jars.
func icebergKey() string {
	sum := sha256.Sum256([]byte(icebergJars))
	return "1.11.0-" + hex.EncodeToString(sum[:6])
}

// IcebergREST is the installed REST catalog with which Apache Iceberg tests its clients. It is for tests: it knows no access control.
type IcebergREST struct {
	java string
	libs string
}

// IcebergREST installs the catalog. An error with the id of a missing tool means that it is not to be had on this machine.
func (c *Cache) IcebergREST(ctx context.Context) (*IcebergREST, error) {
	const name = "iceberg-rest"
	java, err := c.ensureJava(ctx, name, icebergKey())
	if err != nil {
		return nil, err
	}
	dir, err := c.once(ctx, name, icebergKey(), func(ctx context.Context, dir string) error {
		return c.fetchJars(ctx, name, "227 MB", dir, icebergPOM, icebergJars)
	})
	if err != nil {
		return nil, err
	}
	return &IcebergREST{java: java.path, libs: filepath.Join(dir, "libs")}, nil
}

// Jars is the folder of its jars.
func (r *IcebergREST) Jars() string { return r.libs }

// Command is the program, arguments and environment that run the catalog over a SQLite file and a warehouse. It listens on all interfaces: it has no option for that.
// store has the properties of an S3 or GCS store, none for a folder.
func (r *IcebergREST) Command(port, database, warehouse string, store map[string]string) (path string, args, env []string) {
	args = []string{"-Xmx512m", "-XX:TieredStopAtLevel=1", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", filepath.Join(r.libs, "*"), "org.apache.iceberg.rest.RESTCatalogServer"}
	env = []string{
		"CATALOG_URI=jdbc:sqlite:" + database, "CATALOG_WAREHOUSE=" + warehouse, "CATALOG_CATALOG_NAME=rest", "CATALOG_REST_PORT=" + port,
		"CATALOG_JDBC_SCHEMA__VERSION=V1",
	}
	switch {
	case strings.HasPrefix(warehouse, "s3:"):
		env = append(env, "CATALOG_IO__IMPL=org.apache.iceberg.aws.s3.S3FileIO", "CATALOG_S3_PATH__STYLE__ACCESS=true", "CATALOG_S3_ENDPOINT="+store["s3.endpoint"],
			"AWS_REGION="+store["s3.region"], "AWS_ACCESS_KEY_ID="+store["s3.access-key-id"], "AWS_SECRET_ACCESS_KEY="+store["s3.secret-access-key"],
			// Stand-ins keep the framing of checksums in trailers as part of the object.
			"AWS_REQUEST_CHECKSUM_CALCULATION=WHEN_REQUIRED", "AWS_RESPONSE_CHECKSUM_VALIDATION=WHEN_REQUIRED")
	case strings.HasPrefix(warehouse, "gs:"):
		host, _, _ := strings.Cut(store["gcs.endpoint"], "/storage/")
		env = append(env, "CATALOG_IO__IMPL=org.apache.iceberg.gcp.gcs.GCSFileIO", "CATALOG_GCS_SERVICE_HOST="+host, "CATALOG_GCS_NO__AUTH=true", "CATALOG_GCS_PROJECT__ID=test")
	}
	return r.java, args, env
}
