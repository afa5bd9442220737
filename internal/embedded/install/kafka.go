package install

import (
	"bufio"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"millrace/internal/fault"
)

var (
	//go:embed kafka/pom.xml
	kafkaPOM []byte
	//go:embed kafka/jars.sha256
	kafkaJars string
	//go:embed kafka/log4j2.yaml
	kafkaLog4j []byte
	//go:embed kafka/server.properties
	kafkaProperties string
)

const (
	kafkaVersion = "4.3.1"
	minJava      = 17
)

// Kafka is an installed Apache Kafka.
type Kafka struct {
	java    string
	dir     string // libs/ and log4j2.yaml
	archive string // of the classes it loads, empty if there is none
}

// Kafka installs Apache Kafka. Where Java or Maven are missing and this is root on
// a system with apt-get, they are installed as system packages. An error with the
// id of a missing tool means that it is not to be had on this machine.
func (c *Cache) Kafka(ctx context.Context) (*Kafka, error) {
	const name = "kafka"
	java, err := c.ensureJava(ctx, name, kafkaVersion)
	if err != nil {
		return nil, err
	}
	dir, err := c.once(ctx, name, kafkaVersion, func(ctx context.Context, dir string) error {
		return c.fetchKafka(ctx, name, dir)
	})
	if err != nil {
		return nil, err
	}
	k := &Kafka{java: java.path, dir: dir}
	archives, err := c.once(ctx, "kafka-classes", kafkaVersion+"-"+java.key(), func(ctx context.Context, dir string) error {
		c.Progress(name, "archiving classes", 0, 0)
		return k.archiveClasses(ctx, filepath.Join(dir, "kafka.jsa"))
	})
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case err != nil:
		// Only the start takes longer without it.
		c.Log.Warn("kafka runs without a class archive", "error", err)
	default:
		k.archive = filepath.Join(archives, "kafka.jsa")
	}
	return k, nil
}

// javaRuntime is a program and what it says of its version.
type javaRuntime struct{ path, version string }

// key tells runtimes apart: a class archive fits the very one that wrote it.
func (j javaRuntime) key() string {
	sum := sha256.Sum256([]byte(j.path + "\n" + j.version))
	return hex.EncodeToString(sum[:6])
}

// ensureJava finds Java and Maven, or has them installed.
func (c *Cache) ensureJava(ctx context.Context, name, version string) (javaRuntime, error) {
	java, err := findJava(ctx)
	if err == nil {
		if _, mvnErr := exec.LookPath("mvn"); mvnErr == nil {
			return java, nil
		}
		if done, dirErr := isDir(filepath.Join(c.Dir, name+"-"+version)); done && dirErr == nil {
			return java, nil // Maven is needed for the first time only
		}
		err = fault.Newf(missingToolID, "mvn is not on PATH; it is needed to fetch %s", name)
	}
	if !canInstallPackages() {
		return java, err
	}
	if err := c.installPackages(ctx, name, []string{"openjdk-17-jre-headless", "maven"}, []string{"default-jre-headless", "maven"}); err != nil {
		return java, fault.Newf(missingToolID, "installing Java and Maven: %w", err)
	}
	return findJava(ctx)
}

var javaVersion = regexp.MustCompile(`version "(\d+)`)

func findJava(ctx context.Context) (javaRuntime, error) {
	path := filepath.Join(os.Getenv("JAVA_HOME"), "bin", "java")
	if os.Getenv("JAVA_HOME") == "" || !isExecutable(path) {
		var err error
		if path, err = lookTool("java", "for Apache Kafka (version 17 or later)"); err != nil {
			return javaRuntime{}, err
		}
	}
	out, err := exec.CommandContext(ctx, path, "-version").CombinedOutput()
	if err != nil {
		return javaRuntime{}, fault.Newf(missingToolID, "%s does not run: %w", path, err)
	}
	m := javaVersion.FindSubmatch(out)
	if m == nil {
		return javaRuntime{}, fault.Newf(missingToolID, "%s does not tell its version: %s", path, out)
	}
	if major, err := strconv.Atoi(string(m[1])); err != nil || major < minJava {
		return javaRuntime{}, fault.Newf(missingToolID, "%s is version %s, Apache Kafka needs %d or later", path, m[1], minJava)
	}
	return javaRuntime{path: path, version: string(out)}, nil
}

func isExecutable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

// fetchKafka brings the jars and the logging configuration.
func (c *Cache) fetchKafka(ctx context.Context, name, dir string) error {
	if err := os.WriteFile(filepath.Join(dir, "log4j2.yaml"), kafkaLog4j, 0o644); err != nil {
		return err
	}
	return c.fetchJars(ctx, name, "44 MB", dir, kafkaPOM, kafkaJars)
}

// fetchJars lets Maven resolve the pinned versions into dir/libs, and checks every jar.
func (c *Cache) fetchJars(ctx context.Context, name, size, dir string, pom []byte, list string) error {
	mvn, err := lookTool("mvn", "to fetch "+name)
	if err != nil {
		return err
	}
	file := filepath.Join(dir, "pom.xml")
	if err := os.WriteFile(file, pom, 0o644); err != nil {
		return err
	}
	c.Progress(name, "downloading "+size, 0, 0)
	libs := filepath.Join(dir, "libs")
	_, err = command{dir: dir}.run(ctx, mvn, "-q", "-B", "-f", file, "dependency:copy-dependencies", "-DincludeScope=runtime", "-DoutputDirectory="+libs)
	if err != nil {
		return err
	}
	return c.checkJars(name, libs, list)
}

// checkJars compares a folder with a list of sha256 sums: no other file, none missing, none changed.
func (c *Cache) checkJars(name, libs, list string) error {
	want := map[string]string{}
	sums := bufio.NewScanner(strings.NewReader(list))
	for sums.Scan() {
		sum, file, ok := strings.Cut(sums.Text(), "  ")
		if !ok {
			return fmt.Errorf("the list of checksums has a line %q", sums.Text())
		}
		want[file] = sum
	}
	have, err := os.ReadDir(libs)
	if err != nil {
		return fmt.Errorf("listing what Maven copied: %w", err)
	}
	for i, entry := range have {
		sum, ok := want[entry.Name()]
		if !ok {
			return fault.Newf(checksumID, "Maven resolved %s, which is not among the pinned jars", entry.Name())
		}
		if err := checkSHA256(filepath.Join(libs, entry.Name()), sum); err != nil {
			return err
		}
		delete(want, entry.Name())
		c.Progress(name, "checking", int64(i+1), int64(len(have)))
	}
	for file := range want {
		return fault.Newf(checksumID, "Maven did not resolve %s", file)
	}
	return nil
}
