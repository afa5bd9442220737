package registry

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sr"

	"millrace/internal/fault"
)

// dump lists the topic's records as "key value".
func dump(t testing.TB, c *kfake.Cluster) []string {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.ListenAddrs()...), kgo.ConsumeTopics("_schemas"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	ends, err := kadm.NewClient(cl).ListEndOffsets(t.Context(), "_schemas")
	if err != nil {
		t.Fatal(err)
	}
	end, _ := ends.Lookup("_schemas", 0)
	var out []string
	for int64(len(out)) < end.Offset {
		f := cl.PollFetches(t.Context())
		if err := f.Err(); err != nil {
			t.Fatal(err)
		}
		f.EachRecord(func(r *kgo.Record) {
			v := string(r.Value)
			if r.Value == nil {
				v = "null"
			}
			out = append(out, string(r.Key)+" "+v)
		})
	}
	return out
}

// fill writes records, given as dump gives them, as another registry would.
func fill(t testing.TB, c *kfake.Cluster, records ...string) {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.ListenAddrs()...), kgo.DefaultProduceTopic("_schemas"))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	for _, r := range records {
		key, value, ok := strings.Cut(r, " ")
		if !ok {
			t.Fatalf("record %q is not a key and a value", r)
		}
		rec := &kgo.Record{Key: []byte(key)}
		if value != "null" {
			rec.Value = []byte(value)
		}
		if err := cl.ProduceSync(t.Context(), rec).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
}

func createTopic(t testing.TB, c *kfake.Cluster, partitions int32) {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.ListenAddrs()...))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	if _, err := kadm.NewClient(cl).CreateTopic(t.Context(), partitions, 1, nil, "_schemas"); err != nil {
		t.Fatal(err)
	}
}

func TestRecordsAreInConfluentsFormat(t *testing.T) {
	t.Parallel()
	c := startKafka(t)
	in := start(t, c, Config{})
	in.mustDo(t, "POST", "/subjects/s/versions", envelope(t, `"string"`))
	in.mustDo(t, "POST", "/subjects/r/versions", envelope(t, `{"type":"enum","name":"x.E","symbols":["A"],"doc":"a<b"}`))
	in.mustDo(t, "POST", "/subjects/q/versions", `{"schema":"{\"type\":\"array\",\"items\":\"x.E\"}","schemaType":"AVRO","references":[{"name":"x.E","subject":"r","version":-1}]}`)
	in.mustDo(t, "PUT", "/config", `{"compatibility":"full"}`)
	in.mustDo(t, "PUT", "/config/s", `{"compatibility":"NONE"}`)
	in.mustDo(t, "PUT", "/mode/s", `{"mode":"READWRITE"}`)
	in.mustDo(t, "POST", "/subjects/s/versions", envelope(t, `"long"`))
	in.mustDo(t, "DELETE", "/subjects/s/versions/1", "")
	in.mustDo(t, "DELETE", "/subjects/s/versions/1?permanent=true", "")
	in.mustDo(t, "DELETE", "/subjects/s", "")
	in.mustDo(t, "DELETE", "/config", "")
	want := []string{
		`{"keytype":"NOOP","magic":0} null`,
		`{"keytype":"NOOP","magic":0} {"maxId":0}`,
		`{"keytype":"SCHEMA","subject":"s","version":1,"magic":1} {"subject":"s","version":1,"id":1,"schema":"\"string\"","deleted":false}`,
		`{"keytype":"SCHEMA","subject":"r","version":1,"magic":1} {"subject":"r","version":1,"id":2,"schema":"{\"type\":\"enum\",\"name\":\"E\",\"namespace\":\"x\",\"doc\":\"a<b\",\"symbols\":[\"A\"]}","deleted":false}`,
		`{"keytype":"SCHEMA","subject":"q","version":1,"magic":1} {"subject":"q","version":1,"id":3,"references":[{"name":"x.E","subject":"r","version":1}],"schema":"{\"type\":\"array\",\"items\":\"x.E\"}","deleted":false}`,
		`{"keytype":"CONFIG","magic":0} {"compatibilityLevel":"FULL"}`,
		`{"keytype":"CONFIG","subject":"s","magic":0} {"compatibilityLevel":"NONE"}`,
		`{"keytype":"MODE","subject":"s","magic":0} {"mode":"READWRITE"}`,
		`{"keytype":"SCHEMA","subject":"s","version":2,"magic":1} {"subject":"s","version":2,"id":4,"schema":"\"long\"","deleted":false}`,
		`{"keytype":"SCHEMA","subject":"s","version":1,"magic":1} {"subject":"s","version":1,"id":1,"schema":"\"string\"","deleted":true}`,
		`{"keytype":"NOOP","magic":0} {"maxId":4}`,
		`{"keytype":"SCHEMA","subject":"s","version":1,"magic":1} null`,
		`{"keytype":"DELETE_SUBJECT","subject":"s","magic":0} {"subject":"s","version":2}`,
		`{"keytype":"CONFIG","subject":"s","magic":0} null`,
		`{"keytype":"MODE","subject":"s","magic":0} null`,
		`{"keytype":"CONFIG","magic":0} null`,
	}
	if d := cmp.Diff(want, dump(t, c)); d != "" {
		t.Errorf("records (-want +got):\n%s", d)
	}
}

// everything is all that a registry can be asked about.
func everything(t testing.TB, in *instance) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, path := range []string{
		"/subjects?deleted=true", "/subjects", "/schemas?deleted=true", "/schemas", "/config", "/mode", "/config/a?defaultToGlobal=true",
		"/config/b?defaultToGlobal=true", "/mode/a?defaultToGlobal=true", "/mode/b?defaultToGlobal=true", "/subjects/a/versions?deletedOnly=true",
		"/schemas/ids/1", "/schemas/ids/2", "/schemas/ids/3", "/schemas/ids/1/versions?deleted=true", "/schemas/ids/2/versions", "/subjects/b/versions/1/referencedby",
	} {
		status, answer := in.do(t, "GET", path, "")
		out[path] = fmt.Sprint(status, " ", answer)
	}
	return out
}

func TestARestartFindsEverything(t *testing.T) {
	t.Parallel()
	c := startKafka(t)
	in := start(t, c, Config{})
	for _, v := range []string{userV1, userV2, userV3} {
		in.mustDo(t, "POST", "/subjects/a/versions", envelope(t, v))
	}
	in.mustDo(t, "POST", "/subjects/b/versions", envelope(t, userV2))
	in.mustDo(t, "POST", "/subjects/c/versions", `{"schema":"{\"type\":\"array\",\"items\":\"shop.User\"}","references":[{"name":"shop.User","subject":"b","version":1}]}`)
	in.mustDo(t, "PUT", "/config/a", `{"compatibility":"BACKWARD"}`)
	in.mustDo(t, "PUT", "/config", `{"compatibility":"FORWARD"}`)
	in.mustDo(t, "PUT", "/mode/b", `{"mode":"READONLY"}`)
	in.mustDo(t, "DELETE", "/subjects/a/versions/2", "")
	in.mustDo(t, "POST", "/subjects/d/versions", envelope(t, `"int"`))
	in.mustDo(t, "DELETE", "/subjects/d", "")
	in.mustDo(t, "DELETE", "/subjects/d?permanent=true", "")
	before := everything(t, in)
	if err := in.stop(); err != nil {
		t.Fatal(err)
	}
	in = start(t, c, Config{})
	if d := cmp.Diff(before, everything(t, in)); d != "" {
		t.Errorf("after a restart (-before +after):\n%s", d)
	}
	if got := in.mustDo(t, "POST", "/subjects/e/versions", envelope(t, `"float"`)); got != `{"id":6}` {
		t.Errorf("%s: the id of a schema that was deleted for good must not be given again", got)
	}
}

// A compacted topic loses the records of what was deleted for good, but not how far the ids had come.
func TestIdsAreNotGivenAgainAfterCompaction(t *testing.T) {
	t.Parallel()
	c := startKafka(t)
	createTopic(t, c, 1)
	fill(t, c, `{"keytype":"NOOP","magic":0} {"maxId":41}`)
	in := start(t, c, Config{})
	if got := in.mustDo(t, "POST", "/subjects/s/versions", envelope(t, `"int"`)); got != `{"id":42}` {
		t.Errorf("got %s, want id 42", got)
	}
}

func TestATopicOfConfluentsRegistryIsTakenOver(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile("testdata/confluent-topic.txt")
	if err != nil {
		t.Fatal(err)
	}
	var records []string
	for _, line := range strings.Split(strings.TrimSpace(string(raw)), "\n") {
		if !strings.HasPrefix(line, "#") {
			records = append(records, line)
		}
	}
	c := startKafka(t)
	createTopic(t, c, 1)
	fill(t, c, records...)
	in := start(t, c, Config{})
	for path, want := range map[string]string{
		"/config":                          `{"compatibilityLevel":"BACKWARD"}`,
		"/config/cars-value":               `{"compatibilityLevel":"FULL"}`,
		"/mode/cars-value":                 `{"mode":"READONLY"}`,
		"/subjects":                        `["cars-value","protos-value"]`,
		"/subjects?deletedOnly=true":       `["old-value"]`,
		"/subjects/cars-value/versions":    `[1,3]`,
		"/schemas/ids/1":                   `{"schema":"\"string\""}`,
		"/schemas/ids/3":                   `{"schemaType":"PROTOBUF","schema":"syntax = \"proto3\";"}`,
		"/schemas/ids/4?fetchMaxId=true":   `{"schema":"\"double\"","maxId":7}`,
		"/subjects/cars-value/versions/3":  `{"subject":"cars-value","version":3,"id":4,"schema":"\"double\""}`,
		"/schemas/ids/1/subjects":          `["cars-value"]`,
		"/subjects/protos-value/versions":  `[1]`,
		"/subjects/old-value/versions/1":   `{"error_code":40401,"message":"Subject 'old-value' not found."}`,
		"/subjects/cars-value/versions/02": `{"error_code":40402,"message":"Version 2 not found."}`,
	} {
		if _, got := in.do(t, "GET", path, ""); got != want {
			t.Errorf("GET %s: got %s, want %s", path, got, want)
		}
	}
	if got := in.metric(t, "millrace_registry_records_skipped_total"); got != 2 {
		t.Errorf("%v records skipped, want the 2 that are in nobody's format", got)
	}
	if got := in.mustDo(t, "POST", "/subjects/new-value/versions", envelope(t, `"double"`)); got != `{"id":4}` {
		t.Errorf("a schema that the topic has got %s, want its id 4", got)
	}
	status, got := in.do(t, "POST", "/subjects/protos-value/versions", envelope(t, `"double"`))
	if status != http.StatusUnprocessableEntity || !strings.Contains(got, "PROTOBUF") {
		t.Errorf("comparing with a type that cannot be compared: %d %s", status, got)
	}
}

func TestManyRegistrationsAtOnceGiveOneIdASchema(t *testing.T) {
	t.Parallel()
	const schemas, callers = 20, 8
	in := start(t, startKafka(t), Config{})
	ids := make([][callers]int, schemas)
	var wg sync.WaitGroup
	for caller := range callers {
		wg.Go(func() {
			cl := in.client(t)
			for n := range schemas {
				k := (n + caller*7) % schemas
				text := fmt.Sprintf(`{"type":"fixed","name":"F%d","size":%d}`, k, k+1)
				id, err := cl.RegisterSchema(t.Context(), fmt.Sprintf("s%d", k), sr.Schema{Schema: text}, -1, -1)
				if err != nil {
					t.Errorf("registering %d: %v", k, err)
				}
				ids[k][caller] = id
			}
		})
	}
	wg.Wait()
	seen := map[int]int{}
	for k, of := range ids {
		for _, id := range of {
			if id != of[0] {
				t.Errorf("schema %d has ids %v", k, of)
			}
		}
		if other, taken := seen[of[0]]; taken {
			t.Errorf("schemas %d and %d share id %d", other, k, of[0])
		}
		seen[of[0]] = k
	}
}

// Two instances write to one topic at the same time. Every answer must hold for both, and after a restart.
func TestTwoInstancesAgree(t *testing.T) {
	t.Parallel()
	c := startKafka(t)
	both := []*instance{start(t, c, Config{Compatibility: "NONE"}), start(t, c, Config{Compatibility: "NONE"})}
	type answer struct {
		id   int
		text string
	}
	var (
		mu      sync.Mutex
		answers []answer
		wg      sync.WaitGroup
	)
	for which, in := range both {
		wg.Go(func() {
			cl := in.client(t)
			for n := range 40 {
				text := fmt.Sprintf(`{"type":"fixed","name":"F","size":%d}`, 1+n*2+which)
				id, err := cl.RegisterSchema(t.Context(), "contended", sr.Schema{Schema: text}, -1, -1)
				if err != nil {
					t.Errorf("registering: %v", err)
					continue
				}
				mu.Lock()
				answers = append(answers, answer{id, text})
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	conflicts := both[0].metric(t, "millrace_registry_conflicts_total") + both[1].metric(t, "millrace_registry_conflicts_total")
	t.Logf("%v conflicts", conflicts)
	both = append(both, start(t, c, Config{Compatibility: "NONE"}))
	for which, in := range both {
		cl := in.client(t)
		for _, a := range answers {
			eventually(t, "the other instance's schema arrives", func() bool { _, err := cl.SchemaByID(t.Context(), a.id); return err == nil })
			if got, err := cl.SchemaTextByID(t.Context(), a.id); err != nil || got != a.text {
				t.Errorf("instance %d: id %d is %s, %v, but was answered for %s", which, a.id, got, err, a.text)
			}
		}
		versions, err := cl.SubjectVersions(t.Context(), "contended")
		if err != nil || len(versions) != len(answers) {
			t.Errorf("instance %d has %d versions of %d, %v", which, len(versions), len(answers), err)
		}
	}
	// What compaction would leave must say the same.
	last := map[string]string{}
	var order []string
	for _, r := range dump(t, c) {
		key, value, _ := strings.Cut(r, " ")
		last[key] = value
		order = append(order, key)
	}
	compacted := startKafka(t)
	createTopic(t, compacted, 1)
	for i, key := range order {
		if value := last[key]; !slices.Contains(order[i+1:], key) && value != "null" {
			fill(t, compacted, key+" "+value)
		}
	}
	cl := start(t, compacted, Config{}).client(t)
	for _, a := range answers {
		if got, err := cl.SchemaTextByID(t.Context(), a.id); err != nil || got != a.text {
			t.Errorf("after compaction: id %d is %s, %v, but was answered for %s", a.id, got, err, a.text)
		}
	}
}

func TestATopicWithSeveralPartitionsIsRefused(t *testing.T) {
	t.Parallel()
	c := startKafka(t)
	createTopic(t, c, 3)
	r, err := New(Config{}, []kgo.Opt{kgo.SeedBrokers(c.ListenAddrs()...)}, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	err = r.Run(t.Context())
	if id, _ := fault.IDOf(err); id != "MR-REG-003" {
		t.Errorf("got %v, want MR-REG-003", err)
	}
}

func TestALostTopicEndsTheRun(t *testing.T) {
	t.Parallel()
	c := startKafka(t)
	r, err := New(Config{TopicConfigs: kfakeConfigs()}, []kgo.Opt{kgo.SeedBrokers(c.ListenAddrs()...), kgo.MetadataMinAge(10 * time.Millisecond), kgo.MetadataMaxAge(100 * time.Millisecond)}, nil, slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	eventually(t, "the registry is ready", func() bool {
		select {
		case err := <-ended:
			t.Fatalf("ended with %v", err)
		default:
		}
		return r.Ready()
	})
	adm, err := kgo.NewClient(kgo.SeedBrokers(c.ListenAddrs()...))
	if err != nil {
		t.Fatal(err)
	}
	defer adm.Close()
	if _, err := kadm.NewClient(adm).DeleteTopic(ctx, "_schemas"); err != nil {
		t.Fatal(err)
	}
	err = nil
	eventually(t, "Run ends", func() bool {
		select {
		case err = <-ended:
			return true
		default:
			return false
		}
	})
	t.Logf("ended with %v", err)
	if id, _ := fault.IDOf(err); id != "MR-REG-004" {
		t.Errorf("got %v, want MR-REG-004", err)
	}
	if r.Ready() {
		t.Error("a registry without its topic says it is ready")
	}
}

func TestConfigReportsEveryProblem(t *testing.T) {
	t.Parallel()
	_, err := New(Config{Topic: "a b", ReplicationFactor: -1, Compatibility: "SIDEWAYS", WriteTimeout: 1, MaxBodyBytes: 1 << 30, MaxSubjects: -1, MaxVersions: -1}, nil, nil, slog.New(slog.DiscardHandler))
	wantInMessage(t, err, "MR-REG-001", "Topic", "ReplicationFactor", "Compatibility", "WriteTimeout", "MaxBodyBytes", "MaxSubjects", "MaxVersions")
}
