package lakehouse

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"
)

// Failpoints of the commit of rewritten manifests.
const (
	FailManifestsBefore = "lakehouse.manifests.commit.before"
	FailManifestsAfter  = "lakehouse.manifests.commit.after"
)

// ManifestResult says what RewriteManifests has done: manifests of the head before and after.
type ManifestResult struct {
	SnapshotID int64 `json:"snapshot_id"`
	Before     int   `json:"before"`
	After      int   `json:"after"`
	Entries    int64 `json:"entries"` // of manifests written anew
}

// RewriteManifests groups the entries of data manifests by partition, so that a query of one day reads one manifest, in one snapshot that carries the offset vector.
// Manifests that hold a single partition, and share it with no other, stay as they are; there is no commit if fewer than the policy's number would change.
func (c *Catalog) RewriteManifests(ctx context.Context, name string) (ManifestResult, error) {
	return c.rewriteManifests(ctx, name, PolicyOf(name).MinManifests)
}

func (c *Catalog) rewriteManifests(ctx context.Context, name string, least int) (ManifestResult, error) {
	var out ManifestResult
	err := c.swap(ctx, name, func(t *table.Table) error {
		var err error
		out, err = c.rewriteManifestsOnce(ctx, name, t, least)
		return err
	})
	if err != nil {
		return ManifestResult{}, fmt.Errorf("rewriting the manifests of table %s: %w", name, err)
	}
	return out, nil
}

func (c *Catalog) rewriteManifestsOnce(ctx context.Context, name string, t *table.Table, least int) (ManifestResult, error) {
	var out ManifestResult
	snap := t.CurrentSnapshot()
	if snap == nil {
		return out, nil
	}
	store, err := t.FS(ctx)
	if err != nil {
		return out, fmt.Errorf("store: %w", err)
	}
	manifests, err := snap.Manifests(store)
	if err != nil {
		return out, fmt.Errorf("manifests of snapshot %d: %w", snap.SnapshotID, err)
	}
	spec := t.Spec()
	mixed := mixedManifests(manifests, int32(spec.ID()), t.Properties().GetInt64(table.ManifestTargetSizeBytesKey, table.ManifestTargetSizeBytesDefault))
	out = ManifestResult{SnapshotID: snap.SnapshotID, Before: len(manifests), After: len(manifests)}
	if len(mixed) < least {
		return out, nil
	}
	names := partitionNames{t: t, known: map[string]*livePartition{}}
	tx := t.NewTransaction()
	res, err := tx.RewriteManifests(ctx,
		table.WithRewriteManifestPredicate(func(m iceberg.ManifestFile) bool { return mixed[m.FilePath()] }),
		table.WithRewriteManifestClusterBy(func(f iceberg.DataFile) any {
			part, err := names.of(f)
			if err != nil { // a spec that the metadata does not have: by itself
				return f.SpecID()
			}
			return part.name
		}))
	if err != nil || res.IsNoOp() {
		return out, err
	}
	for _, m := range res.AddedManifests {
		out.Entries += int64(m.ExistingDataFiles()) + int64(m.AddedDataFiles())
	}
	if err := c.commitCarried(ctx, name, t, tx, nil, FailManifestsBefore, FailManifestsAfter); err != nil {
		if errors.Is(err, table.ErrCommitFailed) || isStale(err) { // surely not committed
			for _, m := range res.AddedManifests {
				err = errors.Join(err, remove(store, m.FilePath()))
			}
		}
		return out, err
	}
	out.After += len(res.AddedManifests) - len(res.RewrittenManifests)
	done, err := c.Head(ctx, name)
	if err != nil {
		return out, err
	}
	out.SnapshotID = done.SnapshotID
	return out, nil
}

// mixedManifests are the data manifests with rows of several partitions, and small ones of a partition that others hold as well.
func mixedManifests(manifests []iceberg.ManifestFile, spec int32, target int64) map[string]bool {
	out := map[string]bool{}
	single := map[string][]string{} // by partition: small manifests of it alone
	for _, m := range manifests {
		if m.ManifestContent() != iceberg.ManifestContentData || m.PartitionSpecID() != spec {
			continue
		}
		var key []byte
		for _, p := range m.Partitions() {
			if p.LowerBound == nil || p.UpperBound == nil || p.ContainsNull || !bytes.Equal(*p.LowerBound, *p.UpperBound) {
				out[m.FilePath()] = true
				break
			}
			key = append(append(key, *p.LowerBound...), '/')
		}
		if !out[m.FilePath()] && m.Length() < target/2 {
			single[string(key)] = append(single[string(key)], m.FilePath())
		}
	}
	for _, paths := range single {
		if len(paths) > 1 {
			for _, p := range paths {
				out[p] = true
			}
		}
	}
	return out
}
