package embedded_test

import (
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"millrace/internal/embedded"
	"millrace/internal/embedded/embeddedtest"
	"millrace/internal/fault"
)

func kafkaClient(t *testing.T, brokers string, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	client, err := kgo.NewClient(append(opts, kgo.SeedBrokers(brokers))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}

// produce writes n records, acknowledged by the broker, numbered from first.
func produce(t *testing.T, brokers, topic string, first, n int) {
	t.Helper()
	client := kafkaClient(t, brokers)
	var records []*kgo.Record
	for i := range n {
		records = append(records, &kgo.Record{Topic: topic, Value: []byte(strconv.Itoa(first + i))})
	}
	if err := client.ProduceSync(t.Context(), records...).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

// consume reads n records of a topic with one partition.
func consume(t *testing.T, brokers, topic string, n int) []string {
	t.Helper()
	client := kafkaClient(t, brokers, kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	var got []string
	for len(got) < n {
		fetches := client.PollFetches(t.Context())
		if err := fetches.Err(); err != nil {
			t.Fatal(err)
		}
		fetches.EachRecord(func(r *kgo.Record) { got = append(got, string(r.Value)) })
	}
	return got
}

func numbers(n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = strconv.Itoa(i)
	}
	return out
}

func TestBrokerKeepsAcknowledgedRecordsThroughKillAndRestart(t *testing.T) {
	t.Parallel()
	for _, broker := range []string{embedded.BrokerApache, embedded.BrokerKfake} {
		t.Run(broker, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			s := startServers(t, dir, broker, embedded.KafkaChild)
			brokers, topic := s.Endpoints().Kafka, embeddedtest.Name("kept")
			admin := kadm.NewClient(kafkaClient(t, brokers))
			retention := "-1"
			if _, err := admin.CreateTopic(t.Context(), 1, 1, map[string]*string{"retention.ms": &retention}, topic); err != nil {
				t.Fatal(err)
			}
			produce(t, brokers, topic, 0, 100)
			if err := s.Kill(t.Context(), embedded.KafkaChild); err != nil {
				t.Fatal(err)
			}
			if err := s.WaitHealthy(t.Context(), embedded.KafkaChild); err != nil {
				t.Fatal(err)
			}
			produce(t, brokers, topic, 100, 50)
			if diff := cmp.Diff(numbers(150), consume(t, brokers, topic, 150)); diff != "" {
				t.Errorf("after kill -9: %s", diff)
			}
			s.Stop()

			again, err := embeddedtest.Start(t.Context(), dir, embedded.BrokerAuto, embedded.KafkaChild)
			if err != nil {
				t.Fatal(err)
			}
			defer again.Stop()
			if again.Endpoints().Kafka != brokers {
				t.Errorf("address was %s, is %s", brokers, again.Endpoints().Kafka)
			}
			if diff := cmp.Diff(numbers(150), consume(t, brokers, topic, 150)); diff != "" {
				t.Errorf("after a restart of the platform: %s", diff)
			}
			if topics, err := admin.ListTopics(t.Context()); err != nil || len(topics.Names()) != 1 {
				t.Errorf("topics are %v, %v", topics.Names(), err)
			}
		})
	}
}

func TestBrokerOfADataFolderIsNotExchanged(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, err := embeddedtest.Start(t.Context(), dir, embedded.BrokerKfake, embedded.KafkaChild)
	if err != nil {
		t.Fatal(err)
	}
	if detail := s.Status()[0].Detail; detail != embedded.KfakeLimits {
		t.Errorf("status says %q", detail)
	}
	s.Stop()
	_, err = embedded.Start(t.Context(), embedded.Options{DataDir: dir, Broker: embedded.BrokerApache, Only: []string{embedded.KafkaChild}})
	if id, _ := fault.IDOf(err); id != "MR-EMB-011" {
		t.Errorf("error is %v", err)
	}
}

func TestBrokerAutoFallsBackWhereJavaIsMissingAndApacheDoesNot(t *testing.T) {
	// Nothing can be found and nothing installed: no java, no apt-get.
	t.Setenv("PATH", t.TempDir())
	t.Setenv("JAVA_HOME", "")
	s := startServers(t, "", embedded.BrokerAuto, embedded.KafkaChild)
	if detail := s.Status()[0].Detail; !strings.HasPrefix(detail, "kfake") {
		t.Errorf("status says %q", detail)
	}
	_, err := embeddedtest.Start(t.Context(), t.TempDir(), embedded.BrokerApache, embedded.KafkaChild)
	if id, _ := fault.IDOf(err); id != "MR-EMB-003" || !strings.Contains(err.Error(), "java") {
		t.Errorf("error is %v", err)
	}
}

func TestBrokerInTheTestsOwnProcessHoldsRecords(t *testing.T) {
	t.Parallel()
	brokers := embeddedtest.Kfake(t)
	admin := kadm.NewClient(kafkaClient(t, brokers))
	if _, err := admin.CreateTopic(t.Context(), 1, 1, nil, "t"); err != nil {
		t.Fatal(err)
	}
	produce(t, brokers, "t", 0, 3)
	if diff := cmp.Diff(numbers(3), consume(t, brokers, "t", 3)); diff != "" {
		t.Error(diff)
	}
}
