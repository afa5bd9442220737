package supervisor

import (
	"context"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"millrace/internal/fault"
)

// platform starts a supervisor in a process of its own and waits until its child runs.
func platform(t *testing.T, dir, role string) (cmd *exec.Cmd, child int) {
	t.Helper()
	cmd = exec.CommandContext(t.Context(), "/proc/self/exe")
	cmd.Env = append(os.Environ(), roleEnv+"=platform="+dir+","+role)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the platform's child", func() bool {
		c, err := Dial(t.Context(), dir)
		if err != nil {
			return false
		}
		r, err := c.Status(t.Context())
		if err != nil || r.PID != cmd.Process.Pid || len(r.Children) != 1 || r.Children[0].Phase != Healthy {
			return false
		}
		child = r.Children[0].PID
		return true
	})
	return cmd, child
}

func TestChildrenOfAKilledSupervisorDieAndDoNotBlockTheNextStart(t *testing.T) {
	dir := t.TempDir()
	cmd, child := platform(t, dir, "stubborn")
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // "signal: killed" is what we did
	eventually(t, "the child's death", func() bool { return !isAlive(child) })

	s := start(t, dir, testChild("only", "sleep"))
	waitHealthy(t, s)
}

func TestLeftoverOfAnEarlierRunIsKilledBeforeTheStart(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(runDir(dir), 0o700); err != nil {
		t.Fatal(err)
	}
	leftover := exec.CommandContext(t.Context(), "/proc/self/exe")
	leftover.Env = append(os.Environ(), roleEnv+"=stubborn")
	leftover.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := leftover.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- leftover.Wait() }()
	if err := writePID(dir, "old", leftover.Process.Pid); err != nil {
		t.Fatal(err)
	}
	start(t, dir)
	if isAlive(leftover.Process.Pid) {
		t.Error("the leftover lives on")
	}
	if err := <-ended; err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("leftover ended with %v", err)
	}
}

func TestRecycledProcessNumberIsNotKilled(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(runDir(dir), 0o700); err != nil {
		t.Fatal(err)
	}
	bystander := exec.CommandContext(t.Context(), "/proc/self/exe")
	bystander.Env = append(os.Environ(), roleEnv+"=sleep")
	if err := bystander.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = bystander.Process.Kill(); _ = bystander.Wait() })
	stale := `{"pid":` + strconv.Itoa(bystander.Process.Pid) + `,"identity":"another-boot/1"}`
	if err := os.WriteFile(pidPath(dir, "old"), []byte(stale), 0o600); err != nil {
		t.Fatal(err)
	}
	start(t, dir)
	if !isAlive(bystander.Process.Pid) {
		t.Error("a process that only has the same number was killed")
	}
	if _, err := os.Stat(pidPath(dir, "old")); !os.IsNotExist(err) {
		t.Errorf("the stale pid file is still there: %v", err)
	}
}

func TestSecondSupervisorOnAFolderIsRefused(t *testing.T) {
	dir := t.TempDir()
	start(t, dir)
	_, err := OpenFolder(t.Context(), dir, slog.New(slog.DiscardHandler))
	if id, _ := fault.IDOf(err); id != folderBusyID {
		t.Fatalf("error is %v", err)
	}
	for _, want := range []string{"already running (pid " + strconv.Itoa(os.Getpid()), "millrace down"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error %q does not contain %q", err, want)
		}
	}
}

func TestFullDiskIsRefused(t *testing.T) {
	if err := checkFree("/data", minFreeBytes); err != nil {
		t.Errorf("enough space was refused: %v", err)
	}
	err := checkFree("/data", 5<<20)
	if id, _ := fault.IDOf(err); id != diskFullID || !strings.Contains(err.Error(), "/data has 5 MiB free") {
		t.Errorf("error is %v", err)
	}
}

func TestTwoPlatformsRunSideBySide(t *testing.T) {
	dirs := []string{t.TempDir(), t.TempDir()}
	var ports []int
	for _, dir := range dirs {
		s := start(t, dir)
		got, err := s.folder.Ports.Range(t.Context(), "x", "y", "z")
		if err != nil {
			t.Fatal(err)
		}
		ports = append(ports, got...)
		c := testChild("listener", "listen="+strconv.Itoa(got[0]))
		c.Ports = []string{"x"}
		c.Healthy = dialTest(got[0])
		if err := s.Add(c); err != nil {
			t.Fatal(err)
		}
		waitHealthy(t, s)
	}
	seen := map[int]bool{}
	for _, p := range ports {
		if seen[p] {
			t.Errorf("port %d was given twice: %v", p, ports)
		}
		seen[p] = true
	}
}

func TestControlSocketHoldsReleasesAndEndsThePlatform(t *testing.T) {
	// So deep that a socket in the folder would have too long a name.
	dir := filepath.Join(t.TempDir(), strings.Repeat("deep", 30))
	cmd, child := platform(t, dir, "sleep")
	c, err := Dial(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Hold(t.Context(), "only"); err != nil {
		t.Fatal(err)
	}
	r, err := c.Status(t.Context())
	if err != nil || r.Children[0].Phase != Held || isAlive(child) {
		t.Fatalf("after hold: %+v, %v", r, err)
	}
	if err := c.Release(t.Context(), "only"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the child's return", func() bool {
		r, err := c.Status(t.Context())
		return err == nil && r.Children[0].Phase == Healthy
	})
	if id, _ := fault.IDOf(c.Hold(t.Context(), "no/body")); id != unknownChildID {
		t.Errorf("holding an unknown child has id %q", id)
	}
	if err := c.Down(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("the platform ended with %v", err)
	}
	if _, err := Dial(t.Context(), dir); err == nil {
		t.Error("a platform that has ended answers")
	} else if id, _ := fault.IDOf(err); id != notRunningID {
		t.Errorf("error is %v", err)
	}
}

func TestLogIsPutAsideWhenItHasGrownLarge(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "logs"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(LogFile(dir, "a"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(LogFile(dir, "a"), maxLogBytes+1); err != nil {
		t.Fatal(err)
	}
	s := start(t, dir, testChild("a", "die=age"))
	eventually(t, "a word in the new log", func() bool { return strings.Contains(logTail(dir, "a", 5), "dying of age") })
	s.Stop()
	if info, err := os.Stat(LogFile(dir, "a") + ".1"); err != nil || info.Size() != maxLogBytes+1 {
		t.Errorf("the old log: %v, %v", info, err)
	}
}

func dialTest(port int) func(context.Context) error {
	return func(ctx context.Context) error { return DialTCP(ctx, "127.0.0.1:"+strconv.Itoa(port)) }
}
