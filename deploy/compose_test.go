package deploy

import (
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/knadh/koanf/parsers/yaml"

	"millrace/workers"
)

// service is one of compose.yaml with the variables put in.
type service struct {
	image   string
	command []string
	env     map[string]string
	ports   []string
	volumes []string
	depends map[string]string // condition by service
	health  bool
}

const ourImage = "millrace:local"

var variable = regexp.MustCompile(`\$\$|\$\{([A-Z_]+)(?:(:-|:\?)([^}]*))?\}`)

// filled puts variables into text as compose does. One that has neither value nor default is an error.
func filled(text string, values map[string]string) (string, error) {
	var err error
	out := variable.ReplaceAllStringFunc(text, func(m string) string {
		if m == "$$" {
			return "$"
		}
		parts := variable.FindStringSubmatch(m)
		if v := values[parts[1]]; v != "" {
			return v
		}
		if parts[2] != ":-" {
			err = fmt.Errorf("variable %s has no value: %s", parts[1], parts[3])
		}
		return parts[3]
	})
	return out, err
}

// example reads .env.example.
func example(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	for line := range strings.Lines(read(t, ".env.example")) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok && !strings.HasPrefix(key, "#") {
			out[key] = value
		}
	}
	return out
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func texts(t *testing.T, v any) []string {
	t.Helper()
	var out []string
	list, _ := v.([]any)
	for _, one := range list {
		out = append(out, fmt.Sprint(one))
	}
	return out
}

// services reads compose.yaml.
func services(t *testing.T) (map[string]service, []string) {
	t.Helper()
	text, err := filled(read(t, "compose.yaml"), example(t))
	if err != nil {
		t.Fatal(err)
	}
	doc, err := yaml.Parser().Unmarshal([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]service{}
	all, _ := doc["services"].(map[string]any)
	for name, v := range all {
		m, ok := v.(map[string]any)
		if !ok {
			t.Fatalf("service %s is %T", name, v)
		}
		s := service{image: fmt.Sprint(m["image"]), command: texts(t, m["command"]), ports: texts(t, m["ports"]), volumes: texts(t, m["volumes"]), health: m["healthcheck"] != nil, env: map[string]string{}, depends: map[string]string{}}
		env, _ := m["environment"].(map[string]any)
		for k, v := range env {
			s.env[k] = fmt.Sprint(v)
		}
		depends, _ := m["depends_on"].(map[string]any)
		for on, how := range depends {
			condition, _ := how.(map[string]any)
			s.depends[on] = fmt.Sprint(condition["condition"])
		}
		out[name] = s
	}
	if len(out) == 0 {
		t.Fatal("compose.yaml has no services")
	}
	volumes, _ := doc["volumes"].(map[string]any)
	return out, slices.Sorted(maps.Keys(volumes))
}

// imageEnv is what the image sets.
func imageEnv(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, m := range regexp.MustCompile(`(MILLRACE_[A-Z_]+)=(\S+)`).FindAllStringSubmatch(read(t, "Containerfile"), -1) {
		out[m[1]] = m[2]
	}
	return out
}

// load is the configuration that a process with an environment has.
func load(t *testing.T, envs ...map[string]string) (workers.Config, error) {
	t.Helper()
	for _, kv := range os.Environ() {
		if key, _, _ := strings.Cut(kv, "="); strings.HasPrefix(key, workers.EnvPrefix) {
			t.Setenv(key, "")
			if err := os.Unsetenv(key); err != nil { // t.Setenv brings it back
				t.Fatal(err)
			}
		}
	}
	for _, env := range envs {
		for k, v := range env {
			if strings.HasPrefix(k, workers.EnvPrefix) {
				t.Setenv(k, v)
			}
		}
	}
	return workers.Load("", nil)
}

func TestEveryRoleRunsWithTheConfigurationItNeeds(t *testing.T) {
	all, _ := services(t)
	var roles []string
	for name, s := range all {
		if s.image != ourImage {
			continue
		}
		t.Run(name, func(t *testing.T) {
			if len(s.command) < 2 || s.command[0] != "run" {
				t.Fatalf("command is %q", s.command)
			}
			roles = append(roles, s.command[1:]...)
			cfg, err := load(t, imageEnv(t), s.env)
			if err != nil {
				t.Fatal(err)
			}
			if err := cfg.Validate(s.command[1:]); err != nil {
				t.Error(err)
			}
			if cfg.Data != "/var/lib/millrace" || cfg.Admin.Listen != "0.0.0.0:9090" {
				t.Errorf("data is in %s, health at %s: the image's volume and health check are others", cfg.Data, cfg.Admin.Listen)
			}
		})
	}
	slices.Sort(roles)
	want := workers.RoleNames()
	slices.Sort(want)
	if !slices.Equal(roles, want) {
		t.Errorf("compose.yaml runs %q, the roles are %q", roles, want)
	}
}

// shared are the folders that several roles must have in common: with one of its own each, the lake, the plans of maintenance, or who was erased would be another's.
var shared = map[string]struct {
	of    func(workers.Config) string
	roles []string
}{
	"the lake":                  {func(c workers.Config) string { return strings.TrimPrefix(c.Iceberg.Warehouse, "file://") }, []string{"api", "batch", "sink-iceberg"}},
	"plans of maintenance":      {func(c workers.Config) string { return c.Batch.Dir }, []string{"batch", "sink-iceberg"}},
	"the key of erased persons": {workers.Config.ErasureDir, []string{"batch", "sink-clickhouse", "sink-iceberg", "sink-redis"}},
}

func TestRolesThatShareAFolderMountOneVolume(t *testing.T) {
	all, _ := services(t)
	for what, folder := range shared {
		t.Run(what, func(t *testing.T) {
			volumes := map[string][]string{}
			for _, role := range folder.roles {
				cfg, err := load(t, imageEnv(t), all[role].env)
				if err != nil {
					t.Fatal(err)
				}
				for _, v := range all[role].volumes {
					if volume, at, _ := strings.Cut(v, ":"); folder.of(cfg) == at || strings.HasPrefix(folder.of(cfg), at+"/") {
						volumes[volume] = append(volumes[volume], role)
					}
				}
			}
			if len(volumes) != 1 || !slices.ContainsFunc(slices.Collect(maps.Values(volumes)), func(roles []string) bool { return len(roles) == len(folder.roles) }) {
				t.Errorf("volumes with the roles that mount them: %v; want one for %q", volumes, folder.roles)
			}
		})
	}
}

func TestAMisspeltKeyWouldBeFound(t *testing.T) {
	if _, err := load(t, map[string]string{"MILLRACE_KAFKA__BROKER": "kafka:9092"}); err == nil || !strings.Contains(err.Error(), "kafka.broker") {
		t.Errorf("kafka.broker is no key, but: %v", err)
	}
	cfg, err := load(t, imageEnv(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := cfg.Validate([]string{"sink-clickhouse"}); err == nil {
		t.Error("a sink without addresses is valid")
	}
	if _, err := filled("${NOBODY_SET_THIS:?really}", nil); err == nil {
		t.Error("a variable without a value is none")
	}
}

// hostPort finds addresses in values.
var hostPort = regexp.MustCompile(`(?:^|//|,|@|=)([a-z][a-z0-9-]*):(\d+)`)

// serves are the ports of the services that are not ours.
var serves = map[string][]string{"kafka": {"9092", "9093"}, "clickhouse": {"9000"}, "redis": {"6379"}, "temporal": {"7233"}}

func TestAddressesAreOfServices(t *testing.T) {
	all, _ := services(t)
	for name, s := range all {
		if s.image == ourImage {
			listens := []string{"9090"}
			for key, v := range s.env {
				if strings.HasSuffix(key, "__LISTEN") {
					listens = append(listens, v[strings.LastIndexByte(v, ':')+1:])
				}
			}
			serves[name] = listens
		}
	}
	found := 0
	for name, s := range all {
		for key, v := range s.env {
			for _, m := range hostPort.FindAllStringSubmatch(v, -1) {
				found++
				if !slices.Contains(serves[m[1]], m[2]) {
					t.Errorf("%s: %s is %s: nothing serves %s:%s", name, key, v, m[1], m[2])
				}
			}
		}
		for _, p := range s.ports {
			port := p[strings.LastIndexByte(p, ':')+1:]
			if s.image == ourImage && !slices.Contains(serves[name], port) {
				t.Errorf("%s publishes port %s, on which it does not listen", name, port)
			}
			if !strings.HasPrefix(p, "127.0.0.1:") {
				t.Errorf("%s publishes %s to more than this machine, unless asked to", name, p)
			}
		}
	}
	if found < 20 {
		t.Errorf("only %d addresses were found", found)
	}
}

func TestServicesWaitForWhatIsThereAndHealthy(t *testing.T) {
	all, volumes := services(t)
	var used []string
	for name, s := range all {
		for on, condition := range s.depends {
			other, ok := all[on]
			if !ok {
				t.Errorf("%s waits for %s, which is no service", name, on)
			}
			if condition != "service_healthy" || !other.health && other.image != ourImage {
				t.Errorf("%s waits for %s to be %s, of which the health is not asked", name, on, condition)
			}
		}
		for _, v := range s.volumes {
			volume, _, _ := strings.Cut(v, ":")
			used = append(used, volume)
		}
		if s.image != ourImage && !regexp.MustCompile(`^docker\.io/[a-z/-]+:\d[\w.]*$`).MatchString(s.image) {
			t.Errorf("%s: image %s is not pinned to a version with its registry", name, s.image)
		}
	}
	slices.Sort(used)
	if used = slices.Compact(used); !slices.Equal(used, volumes) {
		t.Errorf("volumes %q are used, %q are there", used, volumes)
	}
	for _, name := range []string{"gateway", "stream", "kafka", "clickhouse", "temporal-db"} {
		if len(all[name].volumes) == 0 {
			t.Errorf("%s forgets everything", name)
		}
	}
}

func TestImageRunsAsNobody(t *testing.T) {
	text := strings.ReplaceAll(read(t, "Containerfile"), "\\\n", "")
	stages := regexp.MustCompile(`(?m)^FROM (\S+)(?: AS (\S+))?$`).FindAllStringSubmatchIndex(text, -1)
	if len(stages) != 2 {
		t.Fatalf("%d stages", len(stages))
	}
	last := text[stages[1][0]:]
	for what, pattern := range map[string]string{
		"a user by number that is not root":      `(?m)^USER [1-9]\d*:[1-9]\d*$`,
		"the binary of the first stage":          `(?m)^COPY --from=` + text[stages[0][4]:stages[0][5]] + ` /out/millrace /usr/local/bin/millrace$`,
		"the binary as entry point, not a shell": `(?m)^ENTRYPOINT \["/usr/local/bin/millrace"\]$`,
		"a stop signal that the platform obeys":  `(?m)^STOPSIGNAL SIGTERM$`,
		"a health check at the admin address":    `(?m)^HEALTHCHECK .*127\.0\.0\.1/9090.*GET /readyz`,
		"the C library that it was built with":   `^FROM docker.io/library/debian:bookworm-slim\n`,
		"a title":                                `org.opencontainers.image.title="millrace"`,
		"a licence":                              `org.opencontainers.image.licenses="Apache-2.0"`,
		"a version":                              `org.opencontainers.image.version=`,
		"a revision":                             `org.opencontainers.image.revision=`,
	} {
		if !regexp.MustCompile(pattern).MatchString(last) {
			t.Errorf("the image lacks %s", what)
		}
	}
	image := regexp.MustCompile(`golang:(\d+\.\d+)-bookworm`).FindStringSubmatch(text)
	module := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindStringSubmatch(read(t, "../go.mod"))
	if image == nil || module == nil || image[1] != module[1] {
		t.Errorf("the image is built with Go %v, the module needs %v", image, module)
	}
	if _, err := os.Stat("../cmd/millrace"); err != nil {
		t.Error(err)
	}
	for line := range strings.Lines(read(t, "Containerfile.dockerignore")) {
		line = strings.TrimSpace(line)
		for _, needed := range []string{"go.mod", "go.sum", "cmd", "internal", "event", "api", "workers", "*"} {
			if line == needed {
				t.Errorf("%s is left out of what the image is built of", line)
			}
		}
	}
}
