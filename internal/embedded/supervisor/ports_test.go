package supervisor

import (
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"millrace/internal/fault"
)

func TestPortsAreChosenOnceAndKept(t *testing.T) {
	dir := t.TempDir()
	names := []string{"temporal", "temporal-history", "temporal-matching"}
	var runs [][]int
	for range 2 {
		p, err := loadPorts(mkdir(t, dir))
		if err != nil {
			t.Fatal(err)
		}
		got, err := p.Range(t.Context(), names...)
		if err != nil {
			t.Fatal(err)
		}
		single, err := p.Get(t.Context(), "gateway")
		if err != nil {
			t.Fatal(err)
		}
		runs = append(runs, append(got, single))
		p.close()
	}
	if diff := cmp.Diff(runs[0], runs[1]); diff != "" {
		t.Errorf("ports of the second run differ: %s", diff)
	}
	if first := runs[0]; first[1] != first[0]+1 || first[2] != first[0]+2 {
		t.Errorf("ports %v are not consecutive", first)
	}
	for _, port := range runs[0] {
		if port >= ephemeralLow() {
			t.Errorf("port %d lies among those of outgoing connections, from %d", port, ephemeralLow())
		}
	}
}

func TestKeptPortInUseNamesItsOwner(t *testing.T) {
	dir := t.TempDir()
	p, err := loadPorts(mkdir(t, dir))
	if err != nil {
		t.Fatal(err)
	}
	port, err := p.Get(t.Context(), "redis")
	if err != nil {
		t.Fatal(err)
	}
	p.close()
	var lc net.ListenConfig
	foreign, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:"+strconv.Itoa(port))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = foreign.Close() })

	p, err = loadPorts(dir)
	if err != nil {
		t.Fatal(err)
	}
	p.patience = 100 * time.Millisecond
	_, err = p.Get(t.Context(), "redis")
	if id, _ := fault.IDOf(err); id != portInUseID {
		t.Fatalf("error is %v", err)
	}
	for _, want := range []string{strconv.Itoa(port), "redis", "process " + strconv.Itoa(os.Getpid())} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error %q does not contain %q", err, want)
		}
	}
	if err := p.handOver(t.Context(), []string{"redis"}); err == nil {
		t.Error("a port in use was handed over")
	}
}

func TestKeptPortThatBecomesFreeIsWaitedFor(t *testing.T) {
	dir := t.TempDir()
	p, err := loadPorts(mkdir(t, dir))
	if err != nil {
		t.Fatal(err)
	}
	port, err := p.Get(t.Context(), "redis")
	if err != nil {
		t.Fatal(err)
	}
	p.close()
	dying, err := listen(t.Context(), port)
	if err != nil {
		t.Fatal(err)
	}
	timer := time.AfterFunc(200*time.Millisecond, func() { _ = dying.Close() })
	defer timer.Stop()
	if p, err = loadPorts(dir); err != nil {
		t.Fatal(err)
	}
	p.patience = time.Minute
	got, err := p.Get(t.Context(), "redis")
	if err != nil || got != port {
		t.Errorf("port is %d, %v, want %d", got, err, port)
	}
	p.close()
}

func TestPortIsHeldUntilItIsHandedOver(t *testing.T) {
	p, err := loadPorts(mkdir(t, t.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.close)
	port, err := p.Get(t.Context(), "api")
	if err != nil {
		t.Fatal(err)
	}
	if l, err := listen(t.Context(), port); err == nil {
		_ = l.Close()
		t.Fatal("another listener got the port")
	}
	if err := p.handOver(t.Context(), []string{"api"}); err != nil {
		t.Fatal(err)
	}
	l, err := listen(t.Context(), port)
	if err != nil {
		t.Fatalf("after handing over: %v", err)
	}
	_ = l.Close()
}

func TestDamagedPortTableIsReported(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/ports.json", []byte(`{"kafka": "x"`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := loadPorts(dir); err == nil || !strings.Contains(err.Error(), "ports.json") {
		t.Errorf("error is %v", err)
	}
}

func mkdir(t *testing.T, dir string) string {
	t.Helper()
	if err := os.MkdirAll(runDir(dir), 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}
