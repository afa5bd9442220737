package install

import (
	"archive/tar"
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"

	"millrace/internal/fault"
)

// tool puts a shell script on an otherwise empty PATH.
func tool(t *testing.T, name, script string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir)
	t.Setenv("JAVA_HOME", "")
}

func wantID(t *testing.T, err error, want fault.ID, text string) {
	t.Helper()
	if id, _ := fault.IDOf(err); id != want || !strings.Contains(err.Error(), text) {
		t.Errorf("error is %v, want id %s and %q", err, want, text)
	}
	if fault.Remedy(want) == "" {
		t.Errorf("id %s has no remedy", want)
	}
}

func TestClickHouseOfAnotherContentIsRefused(t *testing.T) {
	tests := []struct{ name, integrity string }{
		{"the registry names another digest", "sha512-other"},
		{"the digest named is right and the archive is not", chdbIntegrity},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			// npm pack --json --loglevel=error --pack-destination DIR PACKAGE
			tool(t, "npm", `echo fake > "$5/f.tgz"; echo '[{"filename":"f.tgz","integrity":"`+tt.integrity+`"}]'`)
			c := newCache(t, t.TempDir())
			_, err := c.ClickHouse(t.Context())
			wantID(t, err, checksumID, "expected")
			if got := entries(t, c.Dir); len(got) != 1 {
				t.Errorf("the cache holds %v", got)
			}
		})
	}
}

func TestClickHouseWithoutNpmSaysWhatIsMissing(t *testing.T) {
	tool(t, "nothing", "")
	_, err := newCache(t, t.TempDir()).ClickHouse(t.Context())
	wantID(t, err, missingToolID, "npm")
}

func TestDamagedEngineInTheCacheIsRefused(t *testing.T) {
	c := newCache(t, t.TempDir())
	dir := filepath.Join(c.Dir, "clickhouse-"+chdbKey)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, chdbLibrary), []byte("short"), 0o700); err != nil {
		t.Fatal(err)
	}
	_, err := c.ClickHouse(t.Context())
	wantID(t, err, checksumID, "remove the folder")
}

func TestLibraryIsUnpackedAndNothingElse(t *testing.T) {
	var archive bytes.Buffer
	zipped := gzip.NewWriter(&archive)
	files := tar.NewWriter(zipped)
	for _, name := range []string{"package/../../escape", "package/libchdb.so"} {
		if err := files.WriteHeader(&tar.Header{Name: name, Size: int64(len(name)), Mode: 0o644}); err != nil {
			t.Fatal(err)
		}
		if _, err := files.Write([]byte(name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := files.Close(); err != nil {
		t.Fatal(err)
	}
	if err := zipped.Close(); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "a.tgz")
	if err := os.WriteFile(path, archive.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	c := newCache(t, dir)
	if err := c.unpackLibrary("clickhouse", path, filepath.Join(dir, "lib")); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "lib")); err != nil || string(b) != "package/libchdb.so" {
		t.Errorf("unpacked %q, %v", b, err)
	}
	if got := entries(t, dir); len(got) != 2 {
		t.Errorf("the folder holds %v", got)
	}
	// A truncated archive is an error, not half a library.
	if err := os.WriteFile(path, archive.Bytes()[:archive.Len()/2], 0o600); err != nil {
		t.Fatal(err)
	}
	if err := c.unpackLibrary("clickhouse", path, filepath.Join(dir, "lib2")); err == nil {
		t.Error("half an archive was unpacked")
	}
}

func TestJavaMustBeThereAndNewEnough(t *testing.T) {
	tests := []struct{ name, script, fails string }{
		{"version 17 is taken", `echo 'openjdk version "17.0.15" 2025-04-15' >&2`, ""},
		{"version 21 is taken", `echo 'openjdk version "21" 2023-09-19' >&2`, ""},
		{"version 11 is too old", `echo 'openjdk version "11.0.2" 2019-01-15' >&2`, "needs 17"},
		{"version 1.8 is too old", `echo 'java version "1.8.0_401"' >&2`, "needs 17"},
		{"one that does not run is refused", `exit 1`, "does not run"},
		{"one that says nothing is refused", ``, "does not tell its version"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tool(t, "java", tt.script)
			_, err := findJava(t.Context())
			if tt.fails == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			wantID(t, err, missingToolID, tt.fails)
		})
	}
	t.Run("none is refused", func(t *testing.T) {
		tool(t, "nothing", "")
		_, err := findJava(t.Context())
		wantID(t, err, missingToolID, "java is not on PATH")
	})
}

func TestMissingJavaIsInstalledByTheSystemWhereWeMay(t *testing.T) {
	dir := t.TempDir()
	// A package manager that does not know the first set of packages and "installs" the second.
	script := `cd "` + dir + `"
echo "$@" >> log
case "$*" in
update*) ;;
*openjdk-17*) echo "Unable to locate package" >&2; exit 100 ;;
*) for tool in java mvn; do echo "#!/bin/sh" > $tool; echo "echo 'openjdk version \"21\"' >&2" >> $tool; /bin/chmod +x $tool; done ;;
esac
`
	if err := os.WriteFile(filepath.Join(dir, "apt-get"), []byte("#!/bin/sh\n"+script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir)
	t.Setenv("JAVA_HOME", "")
	var said []string
	c, err := New(t.TempDir(), nil, func(_, step string, _, _ int64) { said = append(said, step) })
	if err != nil {
		t.Fatal(err)
	}
	java, err := c.ensureJava(t.Context(), "kafka", kafkaVersion)
	if os.Geteuid() != 0 {
		wantID(t, err, missingToolID, "java is not on PATH")
		return
	}
	if err != nil || java.path != filepath.Join(dir, "java") {
		t.Fatalf("java is %+v, %v", java, err)
	}
	log, err := os.ReadFile(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	want := "update -q\ninstall -y -q --no-install-recommends openjdk-17-jre-headless maven\ninstall -y -q --no-install-recommends default-jre-headless maven\n"
	if string(log) != want {
		t.Errorf("apt-get was called with\n%s", log)
	}
	if !slices.Contains(said, "installing system packages openjdk-17-jre-headless maven") {
		t.Errorf("the progress said only %q", said)
	}
}

func TestJarsMustBeThePinnedOnes(t *testing.T) {
	const list = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824  a.jar\n486ea46224d1bb4fb680f34f7c9ad96a8f24ec88be73ea8e5a6c65260e9cb8a7  b.jar\n"
	tests := []struct {
		name  string
		files map[string]string
		fails string
	}{
		{"all as pinned", map[string]string{"a.jar": "hello", "b.jar": "world"}, ""},
		{"one changed", map[string]string{"a.jar": "hello", "b.jar": "World"}, "b.jar has sha256"},
		{"one missing", map[string]string{"a.jar": "hello"}, "did not resolve b.jar"},
		{"one too many", map[string]string{"a.jar": "hello", "b.jar": "world", "c.jar": "!"}, "resolved c.jar"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			for name, content := range tt.files {
				if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			err := newCache(t, dir).checkJars("kafka", dir, list)
			if tt.fails == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			wantID(t, err, checksumID, tt.fails)
		})
	}
	if n := strings.Count(kafkaJars, ".jar\n"); n != 46 || !strings.Contains(kafkaJars, "kafka_2.13-"+kafkaVersion+".jar") {
		t.Errorf("the committed list has %d jars", n)
	}
}

func TestTemporalIsBuiltAnewWhenItsSourceChanges(t *testing.T) {
	source := t.TempDir()
	write := func(name, content string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(source, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("go.mod", "module m")
	write("go.sum", "")
	write("main.go", "package main")
	first, err := sourceKey(source)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := sourceKey(source); err != nil || again != first {
		t.Errorf("the same source has keys %s and %s, %v", first, again, err)
	}
	write("go.sum", "x")
	if changed, err := sourceKey(source); err != nil || changed == first {
		t.Errorf("another source has the same key, %v", err)
	}
	_, err = newCache(t, t.TempDir()).Temporal(t.Context(), t.TempDir())
	wantID(t, err, noSourceID, "no source")
}

func TestRedisOnThePathIsTakenAsItIs(t *testing.T) {
	tool(t, "redis-server", "")
	c := newCache(t, filepath.Join(t.TempDir(), "cache"))
	got, err := c.Redis(t.Context())
	if err != nil || filepath.Base(got.Path) != "redis-server" || len(got.Env) != 0 {
		t.Errorf("got %+v, %v", got, err)
	}
	if _, err := os.Stat(c.Dir); !os.IsNotExist(err) {
		t.Errorf("something was installed: %v", err)
	}
}

func TestRedisThatCannotBeFetchedSaysWhy(t *testing.T) {
	tool(t, "nothing", "")
	_, err := newCache(t, t.TempDir()).Redis(t.Context())
	wantID(t, err, missingToolID, "apt-get")
}
