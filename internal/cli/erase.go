package cli

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/spf13/cobra"

	"millrace/activities"
	"millrace/event"
	"millrace/internal/fault"
	"millrace/olap"
	"millrace/workers"
	"millrace/workflows/name"
)

func (a *app) erase() *cobra.Command {
	c := &cobra.Command{Use: "erase", Short: "Take persons out of every store, and prove it"}
	c.AddCommand(a.eraseRequest(), a.eraseStatus(), a.eraseCertificate(), a.eraseVerify(), a.eraseKey())
	return c
}

// subjectFlags are how a command is told whom it is about.
type subjectFlags struct {
	tenant, file    string
	visitors, users []string
}

func (f *subjectFlags) add(c *cobra.Command) {
	c.Flags().StringVar(&f.tenant, "tenant", "default", "tenant of the subjects")
	c.Flags().StringArrayVar(&f.visitors, "visitor", nil, "a visitor_id; may be repeated")
	c.Flags().StringArrayVar(&f.users, "user", nil, "a user_id; may be repeated")
	c.Flags().StringVar(&f.file, "subjects", "", "file with a subject a line, as visitor:ID or user:ID; - for stdin")
}

// subjects reads and checks them all.
func (f *subjectFlags) subjects() ([]event.Subject, error) {
	var out []event.Subject
	var errs []error
	seen := map[event.Subject]bool{}
	take := func(where string, s event.Subject) {
		if err := s.Validate(); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", where, err))
		} else if !seen[s] {
			seen[s] = true
			out = append(out, s)
		}
	}
	for _, id := range f.visitors {
		take("--visitor", event.Subject{Tenant: f.tenant, Kind: event.SubjectVisitor, ID: id})
	}
	for _, id := range f.users {
		take("--user", event.Subject{Tenant: f.tenant, Kind: event.SubjectUser, ID: id})
	}
	if f.file != "" {
		in := io.Reader(os.Stdin)
		if f.file != "-" {
			file, err := os.Open(f.file)
			if err != nil {
				return nil, fault.Newf("MR-ERA-003", "--subjects: %w", err)
			}
			defer func() { _ = file.Close() }() // only read
			in = file
		}
		lines := bufio.NewScanner(in)
		for n := 1; lines.Scan(); n++ {
			text := strings.TrimSpace(lines.Text())
			if text == "" || strings.HasPrefix(text, "#") {
				continue
			}
			kind, id, _ := strings.Cut(text, ":")
			take(fmt.Sprintf("line %d", n), event.Subject{Tenant: f.tenant, Kind: kind, ID: id})
		}
		if err := lines.Err(); err != nil {
			return nil, fault.Newf("MR-ERA-003", "--subjects: %w", err)
		}
	}
	if len(errs) == 0 && len(out) == 0 {
		errs = append(errs, errors.New("nobody is named: give --visitor, --user or --subjects"))
	}
	if len(errs) > 0 {
		return nil, fault.New("MR-ERA-003", errors.Join(errs...))
	}
	return out, nil
}

// newRequest names a request by its day and chance.
func newRequest(now time.Time) string {
	var b [4]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	return now.UTC().Format("20060102") + "-" + hex.EncodeToString(b[:])
}

// withRows connects to ClickHouse.
func (a *app) withRows(ctx context.Context, f func(driver.Conn, workers.Config) error) error {
	cfg, err := a.load(true)
	if err != nil {
		return err
	}
	if len(cfg.ClickHouse.Addr) == 0 {
		return fault.Newf("MR-CLI-003", "no ClickHouse is known for data directory %s", cfg.Data)
	}
	conn, err := olap.Open(ctx, cfg.ClickHouse)
	if err != nil {
		return err
	}
	return errors.Join(f(conn, cfg), conn.Close())
}

// begin stores whom a request is about and starts its workflow.
func (a *app) begin(ctx context.Context, subjects []event.Subject, typ string, input func(request string) any) (request string, started activities.Started, err error) {
	cl, cfg, err := a.temporal(ctx)
	if err != nil {
		return "", started, err
	}
	defer cl.Close()
	request = newRequest(time.Now())
	text, err := json.Marshal(input(request))
	if err != nil {
		return "", started, fmt.Errorf("input of %s: %w", typ, err)
	}
	t, err := name.TypeNamed(typ)
	if err == nil {
		_, err = t.Target(text)
	}
	if err != nil {
		return "", started, fault.Newf("MR-CLI-007", "input of %s: %w", typ, err)
	}
	err = a.withRows(ctx, func(conn driver.Conn, _ workers.Config) error {
		return olap.NewEraser(conn, cfg.ClickHouse.Cluster).PutSubjects(ctx, request, subjects, time.Now().UTC())
	})
	if err != nil {
		return "", started, err
	}
	call, cancel := context.WithTimeout(ctx, temporalWait)
	defer cancel()
	_, started, err = activities.Start(call, cl, activities.StartRequest{Type: typ, Input: text, Trigger: name.Manual})
	return request, started, fault.New("MR-CLI-005", err)
}

func (a *app) eraseRequest() *cobra.Command {
	var f subjectFlags
	var linked, wait bool
	var after string
	c := &cobra.Command{
		Use: "request", Short: "Erase visitors or users", Args: cobra.NoArgs,
		Long: "Store whom the request is about and start EraseSubject. From the ledger's entry on nothing brings the rows back; they leave the stores in the next minutes to hours (the logical state),\n" +
			"and snapshots and files from before at a date (the physical state). Each state ends with a signed certificate.",
		Example: "  millrace erase request --user anna@example.org --linked --wait\n  millrace erase request --subjects persons.txt",
		RunE: func(c *cobra.Command, _ []string) error {
			subjects, err := f.subjects()
			if err != nil {
				return err
			}
			in := name.EraseSubjectInput{Subjects: int64(len(subjects)), Linked: linked}
			if after != "" {
				d, err := name.ParseDuration(after)
				if err != nil {
					return fault.Newf("MR-ERA-003", "--after: %w", err)
				}
				in.PhysicalAfter = &d
			}
			ctx := c.Context()
			request, started, err := a.begin(ctx, subjects, name.EraseSubject, func(request string) any { in.Request = request; return in })
			if err != nil {
				return err
			}
			out := map[string]any{"request": request, "workflow": started.ID, "subjects": len(subjects)}
			if wait {
				if err := a.waitCertificate(ctx, request); err != nil {
					return err
				}
				out["phase"] = name.PhaseLogical
			}
			if a.output == "json" {
				return a.json(out)
			}
			_, err = fmt.Fprintf(a.out, "request %s: %d subjects, workflow %s\n", request, len(subjects), started.ID)
			if err == nil && wait {
				_, err = fmt.Fprintf(a.out, "no reader finds them any more: `millrace erase certificate %s`\n", request)
			}
			return err
		},
	}
	f.add(c)
	c.Flags().BoolVar(&linked, "linked", false, "also the visitors that were signed in as one of the users, and as no other")
	c.Flags().StringVar(&after, "after", "", `when snapshots and files from before go, as "7d" from now (default erasure.physical_after)`)
	c.Flags().BoolVar(&wait, "wait", false, "wait until no reader finds them")
	a.outputs(c, "text", "json")
	return c
}

// waitCertificate waits for the certificate of the logical state.
func (a *app) waitCertificate(ctx context.Context, request string) error {
	cl, _, err := a.temporal(ctx)
	if err != nil {
		return err
	}
	defer cl.Close()
	return a.withRows(ctx, func(conn driver.Conn, _ workers.Config) error {
		t := time.NewTicker(500 * time.Millisecond)
		defer t.Stop()
		bar := newRunBar(a.err)
		defer bar.end()
		for {
			if p, err := progressOf(ctx, cl, name.EraseID(request), ""); err == nil {
				bar.show(p)
			}
			body, err := activities.Certificate(ctx, conn, request, name.PhaseLogical)
			if err != nil || body != "" {
				return err
			}
			d, err := cl.DescribeWorkflow(ctx, name.EraseID(request), "")
			if err == nil && d.WorkflowCloseTime != nil {
				return fault.Newf("MR-CLI-009", "%s ended before the logical state was reached", name.EraseID(request))
			}
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-t.C:
			}
		}
	})
}

func (a *app) eraseStatus() *cobra.Command {
	c := &cobra.Command{
		Use: "status [REQUEST]", Short: "Show requests: when, how many subjects, which state is certified", Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return a.withRows(c.Context(), func(conn driver.Conn, _ workers.Config) error {
				list, err := activities.EraseRequests(c.Context(), conn)
				if err != nil {
					return err
				}
				if len(args) == 1 {
					one := list[:0]
					for _, r := range list {
						if r.Request == args[0] {
							one = append(one, r)
						}
					}
					if list = one; len(list) == 0 {
						return fault.Newf("MR-ERA-004", "no request %s", args[0])
					}
				}
				if a.output == "json" {
					return a.json(list)
				}
				rows := [][]string{{"REQUEST", "REQUESTED", "SUBJECTS", "STATE"}}
				for _, r := range list {
					rows = append(rows, []string{r.Request, r.RequestedAt.UTC().Format(time.RFC3339), strconv.FormatInt(r.Subjects, 10), r.State})
				}
				return a.table(rows)
			})
		},
	}
	a.outputs(c, "table", "json")
	return c
}

func (a *app) eraseCertificate() *cobra.Command {
	var phase string
	c := &cobra.Command{
		Use: "certificate REQUEST", Short: "Print the newest certificate of a request", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return a.withRows(c.Context(), func(conn driver.Conn, _ workers.Config) error {
				phases := []string{name.PhasePhysical, name.PhaseLogical}
				if phase != "" {
					phases = []string{phase}
				}
				for _, p := range phases {
					body, err := activities.Certificate(c.Context(), conn, args[0], p)
					if err != nil {
						return err
					}
					if body != "" {
						_, err := fmt.Fprintln(a.out, body)
						return err
					}
				}
				return fault.Newf("MR-ERA-004", "request %s has no certificate yet", args[0])
			})
		},
	}
	c.Flags().StringVar(&phase, "phase", "", "logical or physical (default the later one)")
	return c
}

func (a *app) eraseVerify() *cobra.Command {
	var key string
	c := &cobra.Command{
		Use: "verify FILE", Short: "Check the signature of a certificate", Args: cobra.ExactArgs(1),
		Example: "  millrace erase certificate 20261122-5f3a9c01 > certificate.json\n  millrace erase verify certificate.json --key \"$(cat millrace-erasure.pub)\"",
		RunE: func(_ *cobra.Command, args []string) error {
			file, err := os.ReadFile(args[0])
			if err != nil {
				return fault.Newf("MR-ERA-005", "reading the certificate: %w", err)
			}
			public, err := a.publicKey(key)
			if err != nil {
				return err
			}
			cert, err := activities.VerifyCertificate(public, file)
			if err != nil {
				return fault.New("MR-ERA-005", err)
			}
			if a.output == "json" {
				return a.json(cert)
			}
			_, err = fmt.Fprintf(a.out, "valid: request %s, %s state of %d subjects, asked for %s, issued %s, %d places, %d residues\n",
				cert.Request, cert.Phase, cert.Subjects, cert.RequestedAt, cert.IssuedAt, len(cert.Stores), len(cert.Residues))
			for _, r := range cert.Residues {
				until := "stays"
				if r.Expires != "" {
					until = "until " + r.Expires
				}
				if err == nil {
					_, err = fmt.Fprintf(a.out, "  %s %s, %s: %s\n", r.Store, r.Name, until, r.What)
				}
			}
			return err
		},
	}
	c.Flags().StringVar(&key, "key", "", "public key in base64, as `millrace erase key` prints it (default that of this platform)")
	a.outputs(c, "text", "json")
	return c
}

// publicKey is the one given, or that of this platform.
func (a *app) publicKey(text string) (ed25519.PublicKey, error) {
	if text != "" {
		b, err := base64.StdEncoding.DecodeString(strings.TrimSpace(text))
		if err == nil && len(b) != ed25519.PublicKeySize {
			err = fmt.Errorf("it has %d bytes, not %d", len(b), ed25519.PublicKeySize)
		}
		if err != nil {
			return nil, fault.Newf("MR-ERA-005", "--key: %w", err)
		}
		return b, nil
	}
	cfg, err := a.load(false)
	if err != nil {
		return nil, err
	}
	return activities.PublicKey(cfg.ErasureDir())
}

func (a *app) eraseKey() *cobra.Command {
	return &cobra.Command{
		Use: "key", Short: "Print the public key that certificates are checked with", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			public, err := a.publicKey("")
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(a.out, base64.StdEncoding.EncodeToString(public))
			return err
		},
	}
}

func (a *app) exportSubject() *cobra.Command {
	var f subjectFlags
	var keep string
	c := &cobra.Command{
		Use: "export-subject", Short: "Write everything there is about visitors or users into an archive", Args: cobra.NoArgs,
		Long: "Start ExportSubject, which writes an archive (a zip of one NDJSON a table, and a manifest with checksums; mode 0600) into the folder of erasures of the batch role and removes it after a time.",
		RunE: func(c *cobra.Command, _ []string) error {
			subjects, err := f.subjects()
			if err != nil {
				return err
			}
			in := name.ExportSubjectInput{Subjects: int64(len(subjects))}
			if keep != "" {
				if in.Keep, err = name.ParseDuration(keep); err != nil {
					return fault.Newf("MR-ERA-003", "--keep: %w", err)
				}
			}
			request, started, err := a.begin(c.Context(), subjects, name.ExportSubject, func(request string) any { in.Request = request; return in })
			if err != nil {
				return err
			}
			cfg, err := a.load(true)
			if err != nil {
				return err
			}
			path := filepath.Join(cfg.ErasureDir(), "exports", request+".zip")
			if a.output == "json" {
				return a.json(map[string]any{"request": request, "workflow": started.ID, "archive": path})
			}
			_, err = fmt.Fprintf(a.out, "request %s, workflow %s; the archive will be %s\n", request, started.ID, path)
			return err
		},
	}
	f.add(c)
	c.Flags().StringVar(&keep, "keep", "", `the archive is removed then, as "3d" (default 7d)`)
	a.outputs(c, "text", "json")
	return c
}
