package activities

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"millrace/event"
	"millrace/workflows/name"
)

// CertifyInput is what a run did until the certificate of a phase.
type CertifyInput struct {
	Request    string            `json:"request"`
	Phase      string            `json:"phase"`
	At         time.Time         `json:"at"`
	PhysicalBy time.Time         `json:"physical_by"`
	Steps      []name.StepResult `json:"steps"`
}

// CertifyOutput names a certificate by its digest.
type CertifyOutput struct {
	SHA256   string `json:"sha256"`
	Stores   int64  `json:"stores"`
	Residues int64  `json:"residues"`
}

// Certify signs what was done, and keeps it in the folder of erasures and in the table erasure_certificates.
func (e *Erase) Certify(ctx context.Context, in CertifyInput) (CertifyOutput, error) {
	b := startBeats(ctx)
	defer b.end()
	out, err := e.certify(ctx, in)
	return out, eraseFailure(ctx, err)
}

func (e *Erase) certify(ctx context.Context, in CertifyInput) (CertifyOutput, error) {
	noted, err := e.notes.entry(ctx, in.Request)
	if err != nil {
		return CertifyOutput{}, err
	}
	if noted.subjects == 0 {
		return CertifyOutput{}, errInput("request: it is not in the ledger of erasures")
	}
	digest, err := e.notes.digest(ctx, in.Request)
	if err != nil {
		return CertifyOutput{}, err
	}
	stamp := func(t time.Time) string { return t.UTC().Format(time.RFC3339) }
	c := EraseCertificate{
		Schema: CertificateSchema, Request: in.Request, Phase: in.Phase, Subjects: noted.subjects, RequestedAt: stamp(noted.requestedAt), IssuedAt: stamp(in.At), PhysicalBy: stamp(in.PhysicalBy),
		LedgerDigest: digest, Cut: map[string]any{}, Stores: []CertifiedStore{}, Residues: []CertifiedResidue{},
	}
	for topic, ends := range noted.cut {
		c.Cut[topic] = ends
	}
	e.stores(&c, in, noted.requestedAt, stamp)
	key, err := LoadSigningKey(e.cfg.Dir)
	if err != nil {
		return CertifyOutput{}, err
	}
	file, err := SignCertificate(key, c)
	if err != nil {
		return CertifyOutput{}, err
	}
	if err := writePrivate(e.CertificatePath(in.Request, in.Phase), append(file, '\n')); err != nil {
		return CertifyOutput{}, err
	}
	if err := e.notes.certify(ctx, in.Request, in.Phase, in.At, string(file)); err != nil {
		return CertifyOutput{}, err
	}
	e.metrics.certificates.WithLabelValues(in.Phase).Inc()
	sum := sha256.Sum256(file)
	return CertifyOutput{hex.EncodeToString(sum[:]), int64(len(c.Stores)), int64(len(c.Residues))}, nil
}

// CertificatePath is where the certificate of a phase is kept.
func (e *Erase) CertificatePath(request, phase string) string {
	return filepath.Join(e.cfg.Dir, "certificates", request+"-"+phase+".json")
}

// stores says of every place of the inventory what was done there, and of what is left until when.
func (e *Erase) stores(c *EraseCertificate, in CertifyInput, requested time.Time, stamp func(time.Time) string) {
	did := map[string]map[string]int64{} // the numbers of the last step of a place count what is left, those of all steps what was taken
	for _, s := range in.Steps {
		store, place, ok := name.PlaceOf(s.Step)
		if !ok || s.Outcome != name.Done && s.Outcome != name.Skipped {
			continue
		}
		at, _, _ := strings.Cut(store, ".") // "refs" and "purge.0" are of the lake
		if at == "refs" || at == "purge" {
			at = string(event.StoreIceberg)
		}
		into := did[at+"/"+place]
		if into == nil {
			into = map[string]int64{}
			did[at+"/"+place] = into
		}
		for k, n := range s.Numbers {
			switch {
			case k == "snapshot" || k == "sequence" || !safeNumber(n):
			case strings.HasPrefix(k, "rows") || strings.HasSuffix(k, "_deleted") || strings.HasSuffix(k, "_dropped") || strings.HasSuffix(k, "_expired"):
				into[k] += n
			default:
				into[k] = n
			}
		}
	}
	residue := func(h event.Holding, what string, expires time.Time) {
		r := CertifiedResidue{Store: string(h.Store), Name: h.Name, What: what}
		if !expires.IsZero() {
			r.Expires = stamp(expires)
		}
		c.Residues = append(c.Residues, r)
	}
	for _, h := range event.Holdings() {
		s := CertifiedStore{Store: string(h.Store), Name: h.Name, How: string(h.How), Numbers: did[string(h.Store)+"/"+h.Name]}
		switch h.How {
		case event.EraseNothing:
			s.State = "holds none"
		case event.ErasePseudo:
			s.State = "remains"
			residue(h, h.Why, time.Time{})
		case event.EraseExpiry:
			s.State = "expires"
			if until := requested.Add(h.Within); until.After(in.At) {
				residue(h, strings.Join(h.Fields, ", "), until)
			} else {
				s.State = "expired"
			}
		case event.EraseRequest:
			s.State = "erased with the request"
		case event.EraseRows, event.EraseKeys:
			s.State = "erased"
			if s.Numbers == nil {
				s.State = "not there"
			}
		}
		n := s.Numbers
		if n["left"] > 0 {
			residue(h, fmt.Sprintf("%d rows in snapshots from before the request, named by %d refs", n["left"], n["refs_held"]), in.PhysicalBy)
		} else if h.Store == event.StoreIceberg && in.Phase == name.PhaseLogical && s.State == "erased" {
			residue(h, "snapshots and files from before the request, which no ref names", in.PhysicalBy)
		}
		if n["files_waiting"] > 0 {
			residue(h, fmt.Sprintf("%d files of expired snapshots, for readers that have begun", n["files_waiting"]), in.At.Add(e.cfg.Grace))
		}
		if n["files_nameless"] > 0 {
			residue(h, fmt.Sprintf("%d files that no snapshot names, left by a crash or on their way into the table", n["files_nameless"]), in.At.Add(3*24*time.Hour))
		}
		c.Stores = append(c.Stores, s)
	}
}

// digest identifies what the ledger says of a request: SHA-256 over its subjects' digests in order, each with a line end.
func (n *eraseNotes) digest(ctx context.Context, request string) (string, error) {
	var list []string
	if err := n.conn.QueryRow(ctx, "SELECT arraySort(groupUniqArray(toString(subject))) FROM erasures WHERE request_id = ?", request).Scan(&list); err != nil {
		return "", fmt.Errorf("reading request %s in the ledger of erasures: %w", request, err)
	}
	h := sha256.New()
	for _, s := range list {
		_, _ = fmt.Fprintln(h, s) // a hash does not fail
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// PublicKey is the public half of the key that certificates are signed with.
func PublicKey(dir string) (ed25519.PublicKey, error) {
	if err := hasKey(dir, signingKeyName); err != nil { // one that was made now has signed nothing
		return nil, err
	}
	key, err := LoadSigningKey(dir)
	if err != nil {
		return nil, err
	}
	return ed25519.PublicKey(key[32:]), nil
}
