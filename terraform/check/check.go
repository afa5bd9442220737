package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
)

// oldest is the oldest Terraform that the modules work with: a variable's validation may look at other variables since 1.9.
var oldest = [2]int{1, 9}

// checker runs Terraform on copies of the code.
type checker struct {
	terraform string
	root      string // of the code
	work      string // of the copies
	mirror    string // of the providers
}

// check checks all modules and examples, then plants mistakes.
func check(ctx context.Context, root string) error {
	c := &checker{root: root}
	var err error
	if c.terraform, err = find(ctx); err != nil {
		return err
	}
	if c.work, err = os.MkdirTemp("", "terraform-check-"); err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(c.work) }() // what is left is in the system's folder for such things
	if err := c.install(); err != nil {
		return fmt.Errorf("installing the recorded providers: %w", err)
	}
	dirs, err := stacks(root)
	if err != nil {
		return err
	}
	var t tally
	out, err := c.run(ctx, c.root, "fmt", "-check", "-diff", "-recursive", "-no-color")
	t.report("format", strings.TrimSpace(out) == "" && err == nil, out)

	var jobs []func()
	for _, dir := range dirs {
		jobs = append(jobs, func() { c.stack(ctx, &t, dir) })
	}
	for _, m := range mistakes {
		jobs = append(jobs, func() { c.mistake(ctx, &t, m) })
	}
	inParallel(jobs)
	fmt.Printf("%d passed, %d failed\n", t.passed, t.failed)
	if t.failed > 0 {
		return errors.New("the Terraform code is not right")
	}
	return ctx.Err()
}

// find gives the Terraform to use: $TERRAFORM, or the one on the path.
func find(ctx context.Context) (string, error) {
	name := os.Getenv("TERRAFORM")
	if name == "" {
		name = "terraform"
	}
	program, err := exec.LookPath(name)
	if err != nil {
		return "", errors.New("Terraform is missing: install 1.9 or later (https://developer.hashicorp.com/terraform/install; Debian: HashiCorp's apt repository; macOS: brew install hashicorp/tap/terraform), or set TERRAFORM to its path")
	}
	out, err := exec.CommandContext(ctx, program, "version", "-json").Output()
	if err != nil {
		return "", fmt.Errorf("asking %s for its version: %w", program, err)
	}
	var major, minor int
	m := regexp.MustCompile(`"terraform_version":\s*"(\d+)\.(\d+)`).FindSubmatch(out)
	if m == nil {
		return "", fmt.Errorf("%s does not say its version", program)
	}
	if _, err := fmt.Sscan(string(m[1]), &major); err != nil {
		return "", err
	}
	if _, err := fmt.Sscan(string(m[2]), &minor); err != nil {
		return "", err
	}
	if slices.Compare([]int{major, minor}, oldest[:]) < 0 {
		return "", fmt.Errorf("%s is Terraform %d.%d; the modules need %d.%d", program, major, minor, oldest[0], oldest[1])
	}
	return program, nil
}

// stacks lists the folders with code: modules and examples.
func stacks(root string) ([]string, error) {
	var out []string
	for _, kind := range []string{"modules", "examples"} {
		entries, err := os.ReadDir(filepath.Join(root, kind))
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			out = append(out, kind+"/"+e.Name())
		}
	}
	return out, nil
}

// install puts the providers where Terraform finds them: this program under their names, with the schemas beside it.
func (c *checker) install() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	files, err := filepath.Glob(filepath.Join(c.root, "check", "schemas", "*.json"))
	if err != nil {
		return err
	}
	c.mirror = filepath.Join(c.work, "providers")
	rulesFile := filepath.Join(c.root, "check", "schemas", "rules.json")
	for _, file := range files {
		if file == rulesFile {
			continue
		}
		var r recorded
		if err := readJSON(file, &r); err != nil {
			return err
		}
		name := strings.TrimSuffix(filepath.Base(file), ".json")
		types, err := used(c.root, name)
		if err != nil {
			return err
		}
		if have := sortedKeys(r.Resources); !slices.Equal(have, types) {
			return fmt.Errorf("%s has %s, the code uses %s", file, strings.Join(have, " "), strings.Join(types, " "))
		}
		dir := filepath.Join(c.mirror, filepath.FromSlash(r.From), r.Version, runtime.GOOS+"_"+runtime.GOARCH)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		err = errors.Join(
			copyFile(self, filepath.Join(dir, providerPrefix+name+"_v"+r.Version), 0o755),
			copyFile(file, filepath.Join(dir, name+".json"), 0o644),
			copyFile(rulesFile, filepath.Join(dir, "rules.json"), 0o644),
		)
		if err != nil {
			return err
		}
	}
	return nil
}

func copyFile(from, to string, mode fs.FileMode) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	_, err = io.Copy(out, in)
	return err
}

// copy makes a copy of the code that Terraform may write into. A lock file would hold the hashes of the real providers.
func (c *checker) copy() (string, error) {
	to, err := os.MkdirTemp(c.work, "copy-")
	if err != nil {
		return "", err
	}
	for _, kind := range []string{"modules", "examples"} {
		err := filepath.WalkDir(filepath.Join(c.root, kind), func(path string, e fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			rel, err := filepath.Rel(c.root, path)
			switch {
			case err != nil:
				return err
			case e.IsDir() && e.Name() == ".terraform":
				return fs.SkipDir
			case e.IsDir():
				return os.MkdirAll(filepath.Join(to, rel), 0o755)
			case !e.Type().IsRegular() || e.Name() == ".terraform.lock.hcl" || strings.Contains(e.Name(), ".tfstate"):
				return nil
			}
			return copyFile(path, filepath.Join(to, rel), 0o644)
		})
		if err != nil {
			return "", fmt.Errorf("copying the code: %w", err)
		}
	}
	return to, nil
}

// run runs Terraform in a folder and gives what it said.
func (c *checker) run(ctx context.Context, dir string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, c.terraform, args...)
	cmd.Dir = dir
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "TF_") { // the user's own settings for the user's own stacks
			cmd.Env = append(cmd.Env, kv)
		}
	}
	cmd.Env = append(cmd.Env, "TF_CLI_CONFIG_FILE="+os.DevNull, "TF_IN_AUTOMATION=1", "CHECKPOINT_DISABLE=1")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return out.String(), err
}

// steps runs init, validate and test in a folder of a copy and gives the step that failed, with what was said; "" if all is well.
func (c *checker) steps(ctx context.Context, dir string) (step, out string) {
	for _, args := range [][]string{{"init", "-backend=false", "-input=false", "-plugin-dir=" + c.mirror}, {"validate"}, {"test"}} {
		out, err := c.run(ctx, dir, append(args, "-no-color")...)
		if err != nil {
			return args[0], out
		}
		if args[0] == "test" && !regexp.MustCompile(`Success! [1-9]\d* passed`).MatchString(out) {
			return "test", "no test was run:\n" + out
		}
	}
	return "", ""
}

// stack checks a module or example.
func (c *checker) stack(ctx context.Context, t *tally, dir string) {
	tree, err := c.copy()
	if err != nil {
		t.report(dir, false, err.Error())
		return
	}
	step, out := c.steps(ctx, filepath.Join(tree, dir))
	t.report(dir+": init, validate, test", step == "", "terraform "+step+" says:\n"+out)
}

// mistake plants a mistake and expects it to be found.
func (c *checker) mistake(ctx context.Context, t *tally, m mistake) {
	name := "planted in " + m.file + ": " + m.name
	tree, err := c.copy()
	if err != nil {
		t.report(name, false, err.Error())
		return
	}
	file := filepath.Join(tree, m.file)
	text, err := os.ReadFile(file)
	if err != nil {
		t.report(name, false, err.Error())
		return
	}
	if bytes.Count(text, []byte(m.old)) != 1 {
		t.report(name, false, fmt.Sprintf("%q is not in the file exactly once", m.old))
		return
	}
	if err := os.WriteFile(file, bytes.Replace(text, []byte(m.old), []byte(m.new), 1), 0o644); err != nil {
		t.report(name, false, err.Error())
		return
	}
	step, out := c.steps(ctx, filepath.Dir(file))
	// Terraform breaks its lines at a width.
	said := strings.Join(strings.Fields(strings.ReplaceAll(out, "│", " ")), " ")
	found := step == m.step && strings.Contains(said, m.says)
	t.report(name, found, fmt.Sprintf("expected terraform %s to say %q, but %q said:\n%s", m.step, m.says, step, out))
}

// tally counts and prints results.
type tally struct {
	mu             sync.Mutex
	passed, failed int
}

func (t *tally) report(name string, ok bool, why string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if ok {
		t.passed++
		fmt.Println("ok   " + name)
		return
	}
	t.failed++
	fmt.Println("FAIL " + name + "\n     " + strings.ReplaceAll(strings.TrimSpace(why), "\n", "\n     "))
}

// inParallel runs jobs, two at a time: each starts processes of its own.
func inParallel(jobs []func()) {
	var wg sync.WaitGroup
	slots := make(chan struct{}, 2)
	for _, job := range jobs {
		slots <- struct{}{}
		wg.Add(1)
		go func() {
			defer wg.Done()
			defer func() { <-slots }()
			job()
		}()
	}
	wg.Wait()
}
