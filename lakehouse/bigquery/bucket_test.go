package bigquery

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"millrace/internal/embedded/embeddedtest"
)

// inBuckets starts a Cloud Storage whose objects are where the emulator of BigQuery looks for gs://.
func inBuckets(t *testing.T) (lake *embeddedtest.Lake, objects func() []string) {
	t.Helper()
	if os.Getenv(cloudEnv) != "" || servers == nil {
		t.Skip("Cloud Storage's stand-in belongs to the emulator of BigQuery")
	}
	dir := filepath.Join(servers.Dir(), "bigquery")
	lake, err := embeddedtest.OpenLake(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := lake.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Setenv("STORAGE_EMULATOR_HOST", strings.TrimPrefix(lake.GCS, "http://"))
	return lake, func() (found []string) {
		c, err := (&Store{cfg: emulated(t, servers)}).objects(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		all := c.Bucket(embeddedtest.Bucket).Objects(t.Context(), nil)
		for o, err := all.Next(); err == nil; o, err = all.Next() {
			found = append(found, o.Name)
		}
		return found
	}
}

// A lake that is itself in a bucket is loaded by the names of its files (TestJobsAreSentWithTheirLimits): the emulator cannot show it, which takes a folder a=b for a column a.
func TestRowsGoThroughABucketAndNothingOfThemStaysThere(t *testing.T) {
	lake, objects := inBuckets(t)
	cfg := emulated(t, servers)
	cfg.Bucket, cfg.PartBytes = "gs://"+embeddedtest.Bucket+"/to-bigquery", 1<<16
	warehouse, properties := lake.Store("file", "warehouse")
	f := newFixtureIn(t, cfg, warehouse, properties)
	f.append(t, 40)
	f.publish(t)
	f.load(t)
	f.append(t, 60)
	f.compact(t) // files that hold loaded rows too: the new ones are written anew
	f.publish(t)
	through := 0
	f.hook = func(_ context.Context, point, _ string) {
		if point == FailPart && slices.ContainsFunc(objects(), func(name string) bool { return strings.HasPrefix(name, "to-bigquery/") }) {
			through++
		}
	}
	f.load(t)
	f.holds(t, 100)
	if through == 0 {
		t.Error("no part was in the bucket")
	}
	if left := objects(); len(left) != 0 {
		t.Errorf("left in the bucket: %q", left)
	}
}
