package bigquery

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"cloud.google.com/go/storage"
	"google.golang.org/api/option"

	"millrace/internal/fault"
)

// objects connects to the store of the bucket, with the credentials that BigQuery is asked with. STORAGE_EMULATOR_HOST names a stand-in, as for every program.
func (s *Store) objects(ctx context.Context) (*storage.Client, error) {
	var opts []option.ClientOption
	switch {
	case s.cfg.Endpoint != "":
		opts = append(opts, option.WithoutAuthentication())
	case s.cfg.Credentials != "":
		kind, err := credentialsKind(s.cfg.Credentials)
		if err != nil {
			return nil, fault.New(refusedID, err)
		}
		opts = append(opts, option.WithAuthCredentialsFile(kind, s.cfg.Credentials))
	}
	c, err := storage.NewClient(ctx, append(opts, storage.WithJSONReads())...)
	if err != nil {
		return nil, fault.New(refusedID, fmt.Errorf("connecting to Cloud Storage: %w", err))
	}
	return c, nil
}

func splitURI(uri string) (bucket, object string) {
	bucket, object, _ = strings.Cut(strings.TrimPrefix(uri, bucketScheme), "/")
	return bucket, object
}

// put writes an object.
func (s *Store) put(ctx context.Context, uri string, body []byte) (err error) {
	c, err := s.objects(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	bucket, object := splitURI(uri)
	w := c.Bucket(bucket).Object(object).NewWriter(ctx)
	_, err = w.Write(body)
	if err = errors.Join(err, w.Close()); err != nil {
		return fmt.Errorf("writing %s: %w", uri, err)
	}
	return nil
}

// remove deletes an object; one that is not there is no error.
func (s *Store) remove(ctx context.Context, uri string) (err error) {
	c, err := s.objects(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	bucket, object := splitURI(uri)
	if err := c.Bucket(bucket).Object(object).Delete(ctx); err != nil && !errors.Is(err, storage.ErrObjectNotExist) {
		return fmt.Errorf("deleting %s: %w", uri, err)
	}
	return nil
}
