package lakehouse

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/catalog/rest"
	"github.com/apache/iceberg-go/table"
	"github.com/cespare/xxhash/v2"
)

// expiringProperty begins the names of table properties that hold the ids of snapshots which an expiry is about to remove.
//
// A SQL catalog checks that no ref names them in the commit itself (unnamed). A REST server cannot: a tag made since the expiry was planned would go with its
// snapshot, unseen. So both sides first say what they do and then look (Dekker 1965): the expiry writes the property, reads the refs, and removes; whoever
// sets a ref sets it, and reads the properties in the answer. The server orders the commits, so at least one sees the other: a ref on a snapshot that is
// about to go is taken back, and the expiry refuses to remove a snapshot that has a ref. Tags of other engines are only seen by the second.
const expiringProperty = "millrace.expiring."

func openREST(ctx context.Context, cfg Config) (*rest.Catalog, error) {
	opts := []rest.Option{rest.WithTransportFactory(restTransport)}
	if cfg.CatalogToken != "" {
		opts = append(opts, rest.WithOAuthToken(cfg.CatalogToken))
	}
	if cfg.CatalogWarehouse != "" {
		opts = append(opts, rest.WithWarehouseLocation(cfg.CatalogWarehouse))
	}
	p := cfg.CatalogProperties
	for key, option := range map[string]func(string) rest.Option{
		propPrefix: rest.WithPrefix, propCredential: rest.WithCredential, propScope: rest.WithScope, propAudience: rest.WithAudience, propResource: rest.WithResource,
	} {
		if v := p[key]; v != "" {
			opts = append(opts, option(v))
		}
	}
	if v := p[propAuthURI]; v != "" {
		u, err := url.Parse(v)
		if err != nil {
			return nil, fmt.Errorf("catalog_properties.%s: %w", propAuthURI, err)
		}
		opts = append(opts, rest.WithAuthURI(u))
	}
	if strings.EqualFold(p[propSigV4], "true") {
		opts = append(opts, rest.WithSigV4RegionSvc(p[propSigRegion], p[propSigName]))
	}
	more := iceberg.Properties{}
	for k, v := range p {
		if strings.HasPrefix(k, propHeader) {
			more[k] = v
		}
	}
	for k, v := range cfg.Store {
		more[k] = v
	}
	return rest.NewCatalog(ctx, cfg.CatalogName, cfg.CatalogURI, append(opts, rest.WithAdditionalProps(more))...)
}

// commitAtServer commits once at a REST server.
func (b *backend) commitAtServer(ctx context.Context, id table.Identifier, reqs []table.Requirement, updates []table.Update) (table.Metadata, string, error) {
	var guard *unnamed
	known := make([]table.Requirement, 0, len(reqs))
	for _, r := range reqs {
		if u, ok := r.(unnamed); ok {
			guard = &u
			continue
		}
		known = append(known, r)
	}
	if guard != nil {
		tidy, err := b.announce(ctx, id, *guard)
		if err != nil {
			return nil, "", err
		}
		updates = append(slices.Clone(updates), table.NewRemovePropertiesUpdate(tidy))
	}
	meta, loc, err := b.Catalog.CommitTable(ctx, id, known, updates)
	if err != nil {
		return nil, "", refusal(err)
	}
	if err := b.takeBack(ctx, id, meta, known, updates); err != nil {
		return nil, "", err
	}
	return meta, loc, nil
}

// announce says at the server which snapshots are about to go, and then looks whether a ref names one. It gives the announcements that are over with the removal.
func (b *backend) announce(ctx context.Context, id table.Identifier, u unnamed) ([]string, error) {
	ids := slices.Sorted(slices.Values(u.snaps))
	text := make([]string, len(ids))
	for i, s := range ids {
		text[i] = strconv.FormatInt(s, 10)
	}
	value := strings.Join(text, ",")
	h := xxhash.New()
	_, _ = h.WriteString(value) // never fails
	key := expiringProperty + hex.EncodeToString(h.Sum(nil))
	t, err := b.LoadTable(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("loading table %v: %w", id, err)
	}
	meta := t.Metadata()
	if meta.Properties()[key] != value { // else an earlier attempt has said so
		reqs := []table.Requirement{table.AssertTableUUID(meta.TableUUID())}
		if meta, _, err = b.Catalog.CommitTable(ctx, id, reqs, []table.Update{table.NewSetPropertiesUpdate(iceberg.Properties{key: value})}); err != nil {
			return nil, refusal(err)
		}
	}
	if err := u.Validate(meta); err != nil {
		return nil, refusal(err)
	}
	there := map[int64]bool{}
	for _, s := range meta.Snapshots() {
		there[s.SnapshotID] = !slices.Contains(u.snaps, s.SnapshotID)
	}
	var over []string
	for k, v := range meta.Properties() {
		if strings.HasPrefix(k, expiringProperty) && !slices.ContainsFunc(snapshotIDs(v), func(s int64) bool { return there[s] }) {
			over = append(over, k)
		}
	}
	slices.Sort(over)
	return over, nil
}

func snapshotIDs(text string) []int64 {
	var out []int64
	for s := range strings.SplitSeq(text, ",") {
		if id, err := strconv.ParseInt(s, 10, 64); err == nil {
			out = append(out, id)
		}
	}
	return out
}

// takeBack undoes refs that were set to snapshots which are about to go.
func (b *backend) takeBack(ctx context.Context, id table.Identifier, meta table.Metadata, reqs []table.Requirement, updates []table.Update) error {
	going := map[int64]bool{}
	for k, v := range meta.Properties() {
		if strings.HasPrefix(k, expiringProperty) {
			for _, s := range snapshotIDs(v) {
				going[s] = true
			}
		}
	}
	if len(going) == 0 {
		return nil
	}
	for _, u := range updates {
		if u.Action() != table.UpdateSetSnapshotRef {
			continue
		}
		var ref struct {
			Name         string        `json:"ref-name"`
			Type         table.RefType `json:"type"`
			SnapshotID   int64         `json:"snapshot-id"`
			MaxRefAge    int64         `json:"max-ref-age-ms"`
			MaxAge       int64         `json:"max-snapshot-age-ms"`
			MinSnapshots int           `json:"min-snapshots-to-keep"`
		}
		if err := recode(u, &ref); err != nil {
			return fmt.Errorf("reading an update of table %v: %w", id, err)
		}
		if ref.Name == table.MainBranch || !going[ref.SnapshotID] {
			continue
		}
		undo := table.Update(table.NewRemoveSnapshotRefUpdate(ref.Name))
		if from := wasAt(reqs, ref.Name); from != nil {
			undo = table.NewSetSnapshotRefUpdate(ref.Name, *from, ref.Type, ref.MaxRefAge, ref.MaxAge, ref.MinSnapshots)
		}
		now := []table.Requirement{table.AssertTableUUID(meta.TableUUID()), table.AssertRefSnapshotID(ref.Name, &ref.SnapshotID)}
		_, _, err := b.Catalog.CommitTable(ctx, id, now, []table.Update{undo})
		if isStale(refusal(err)) { // another process has moved it on, or it went with its snapshot
			err = nil
		}
		return errors.Join(fmt.Errorf("%w: %d is about to be expired", ErrNoSnapshot, ref.SnapshotID), err)
	}
	return nil
}

// wasAt is the snapshot at which a commit required a ref to be, nil if it required that there was none, or nothing.
func wasAt(reqs []table.Requirement, name string) *int64 {
	for _, r := range reqs {
		var at struct {
			Ref        string `json:"ref"`
			SnapshotID *int64 `json:"snapshot-id"`
		}
		if err := recode(r, &at); err == nil && at.Ref == name {
			return at.SnapshotID
		}
	}
	return nil
}

// recode reads the fields of one of iceberg-go's unexported types.
func recode(from, to any) error {
	b, err := json.Marshal(from)
	if err != nil {
		return err
	}
	return json.Unmarshal(b, to)
}
