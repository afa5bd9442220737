package lakehouse

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	iceio "github.com/apache/iceberg-go/io"
	"github.com/apache/iceberg-go/io/gocloud/blobfs"
	_ "github.com/apache/iceberg-go/io/gocloud/gcs" // gs://
	"github.com/apache/iceberg-go/io/gocloud/s3"
	"github.com/apache/iceberg-go/table"
	"github.com/apache/iceberg-go/utils"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/google/uuid"
	"gocloud.dev/blob"

	"millrace/internal/fault"
)

// answerTimeout bounds how long a store or catalog may take to begin its answer.
const answerTimeout = time.Minute

// store reaches the files of a warehouse. iceberg-go would open a store anew, with connections and credentials of its own, each time a table is read or written.
type store struct {
	scheme, bucket string // no bucket on disk
	root           string // without a slash at the end
	props          map[string]string
	aws            *aws.Config
	idle           func() // closes idle connections

	opening sync.Mutex
	blobs   *blob.Bucket
}

func newStore(ctx context.Context, cfg Config) (*store, error) {
	s := &store{root: strings.TrimRight(cfg.Warehouse, "/"), props: cfg.Store, idle: func() {}}
	var err error
	if s.scheme, s.bucket, err = splitWarehouse(cfg.Warehouse); err != nil || s.scheme != "s3" {
		return s, err
	}
	if s.aws, err = s3.ParseAWSConfig(ctx, s.props); err != nil {
		return nil, fmt.Errorf("store of %s: %w", s.root, err)
	}
	if s.props[iceio.S3ProxyURI] == "" && s.props[iceio.S3ConnectTimeout] == "" && os.Getenv("AWS_CA_BUNDLE") == "" { // these need the SDK's own client
		t, idle := newTransport()
		t.MaxIdleConnsPerHost = 64
		s.aws.HTTPClient = &http.Client{Transport: t, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }} // the SDK follows them, signing anew
		s.idle = idle
	}
	return s, nil
}

// newTransport is HTTP with the environment's proxy, and an end for servers that take a request and never answer.
func newTransport() (*http.Transport, func()) {
	t := &http.Transport{Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true, MaxIdleConns: 256, IdleConnTimeout: 90 * time.Second, TLSHandshakeTimeout: 10 * time.Second, ResponseHeaderTimeout: answerTimeout}
	return t, t.CloseIdleConnections
}

// with is the context in which iceberg-go is to be called: what it opens itself then shares the connections and credentials.
func (s *store) with(ctx context.Context) context.Context {
	if s == nil || s.aws == nil {
		return ctx
	}
	return utils.WithAwsConfig(ctx, s.aws)
}

// fs is the store for the time of ctx.
func (s *store) fs(ctx context.Context) (iceio.IO, error) {
	if s.scheme == "file" {
		return iceio.LocalFS{}, nil
	}
	s.opening.Lock()
	defer s.opening.Unlock()
	if s.blobs == nil {
		opened, err := iceio.LoadFS(s.with(context.WithoutCancel(ctx)), s.props, s.root)
		if err != nil {
			return nil, fault.New("MR-ICE-041", fmt.Errorf("opening %s: %w", s.root, err))
		}
		f, ok := opened.(*blobfs.FileIO)
		if !ok {
			return nil, fmt.Errorf("opening %s: unexpected store %T", s.root, opened)
		}
		s.blobs = f.Bucket
	}
	schemes := []string{s.scheme}
	if s.scheme == "s3" {
		schemes = s3Schemes[:]
	}
	return blobfs.New(ctx, s.blobs, blobfs.DefaultObjectLocationExtractor(s.bucket, schemes...)), nil
}

// holds says whether a location is in this store: in its bucket, or on disk.
func (s *store) holds(location string) bool {
	root := s.scheme + "://" + s.bucket
	if s.scheme == "file" {
		return !strings.Contains(bare(location), "://")
	}
	return strings.HasPrefix(bare(location)+"/", root+"/")
}

// files is how a table that was loaded by any catalog reaches its files: through this store, if they are in it.
func (s *store) files(t *table.Table) table.FSysF {
	if s == nil || !s.holds(t.Location()) || !s.holds(t.MetadataLocation()) {
		return t.FS
	}
	return s.fs
}

func (s *store) close() error {
	if s == nil {
		return nil
	}
	s.opening.Lock()
	defer s.opening.Unlock()
	var err error
	if s.blobs != nil {
		err = s.blobs.Close()
		s.blobs = nil
	}
	s.idle()
	return err
}

// CheckStore writes, reads, lists and removes a small file in the warehouse. With a REST catalog that hands out credentials it does nothing: they are for tables.
func (c *Catalog) CheckStore(ctx context.Context) error {
	if c.base.store == nil {
		return nil
	}
	if err := c.base.store.check(ctx); err != nil {
		return fault.New("MR-ICE-041", fmt.Errorf("checking warehouse %s: %w", c.cfg.Warehouse, err))
	}
	return nil
}

func (s *store) check(ctx context.Context) error {
	f, err := s.fs(ctx)
	if err != nil {
		return err
	}
	files, ok := f.(shelfFS)
	if !ok {
		return fmt.Errorf("%T cannot be listed", f)
	}
	folder := s.root + "/_maintenance/probe"
	path := folder + "/" + uuid.NewString()
	if err := files.WriteFile(path, []byte(path)); err != nil {
		return fmt.Errorf("writing: %w", err)
	}
	b, err := files.ReadFile(path)
	if err == nil && string(b) != path {
		err = fmt.Errorf("%d bytes are not those that were written", len(b))
	}
	if err != nil {
		return fmt.Errorf("reading: %w", err)
	}
	seen := false
	if err := walk(files, folder, func(i item) error {
		seen = seen || bare(i.path) == bare(path)
		return nil
	}); err != nil {
		return err
	}
	if !seen {
		return fmt.Errorf("a file that was just written is not listed below %s", folder)
	}
	return remove(files, path)
}

// s3Schemes are the names by which engines call one and the same store.
var s3Schemes = [...]string{"s3", "s3a", "s3n"}

// bare is a path in the one form in which paths are compared: listings give local files without their scheme, and engines have several ways to name a file.
func bare(p string) string {
	if rest, ok := strings.CutPrefix(p, "file:"); ok { // file:///x, and file:/x as Hadoop has it
		return "/" + strings.TrimLeft(rest, "/")
	}
	if scheme, rest, ok := strings.Cut(p, "://"); ok && slices.Contains(s3Schemes[:], scheme) {
		return "s3://" + rest
	}
	return p
}
