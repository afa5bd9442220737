package registry

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"slices"

	"github.com/twmb/franz-go/pkg/sr"

	"millrace/internal/fault"
)

// Ensure registers the Avro schema of each subject (subject → schema text) where it is missing and gives the ids by subject.
// It works with any Confluent-compatible registry. Subjects are registered in order of name; a problem with one does not keep
// the others from being registered, and all problems are reported. An incompatible schema is fault MR-REG-005.
func Ensure(ctx context.Context, client *sr.Client, subjects map[string]string) (map[string]int, error) {
	ids := make(map[string]int, len(subjects))
	var errs []error
	for _, subject := range slices.Sorted(maps.Keys(subjects)) {
		id, err := client.RegisterSchema(ctx, subject, sr.Schema{Schema: subjects[subject]}, -1, -1)
		if err == nil {
			ids[subject] = id
			continue
		}
		var answer *sr.ResponseError
		if errors.As(err, &answer) && answer.StatusCode == http.StatusConflict {
			errs = append(errs, fault.Newf("MR-REG-005", "the schema of subject %s is not compatible with an earlier version: %w", subject, err))
			continue
		}
		errs = append(errs, fault.Newf("MR-REG-006", "registering the schema of subject %s: %w", subject, err))
		if answer == nil {
			break // not answered at all: the others would fail alike, each after a timeout
		}
	}
	return ids, errors.Join(errs...)
}
