package streaming

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"millrace/internal/fault"
)

// checkTopics learns the inputs' ids and refuses partition counts that are not the topology's.
func (w *Worker) checkTopics(ctx context.Context) error {
	cl, err := kgo.NewClient(w.opts...)
	if err != nil {
		return fmt.Errorf("making a client: %w", err)
	}
	defer cl.Close()
	want := slices.Clone(w.top.Inputs)
	for _, t := range w.top.RequiredTopics() {
		want = append(want, t.Name)
	}
	deadline := time.Now().Add(10 * time.Second) // brokers may learn of a new topic one after the other
	for {
		topics, err := kadm.NewClient(cl).ListTopics(ctx, want...)
		if err != nil {
			return fmt.Errorf("listing topics: %w", err)
		}
		var errs []error
		missing := false
		w.ids = map[string]topicID{}
		for _, name := range want {
			switch d := topics[name]; {
			case d.Err != nil || len(d.Partitions) == 0:
				missing = true
				errs = append(errs, fault.Newf("MR-STR-004", "topic %s cannot be used: %w", name, errors.Join(d.Err, errEmptyTopic)))
			case len(d.Partitions) != int(w.top.Partitions):
				errs = append(errs, fault.Newf("MR-STR-002", "topic %s has %d partitions, the topology has %d", name, len(d.Partitions), w.top.Partitions))
			case slices.Contains(w.top.Inputs, name):
				w.ids[name] = d.ID
			case name == ChangelogTopic(w.top):
				w.stateID = d.ID
			}
		}
		if err = errors.Join(errs...); err == nil || !missing || time.Now().After(deadline) {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for topics: %w", ctx.Err())
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// describeState learns what a local snapshot must fit: the cluster, and for how long the changelog keeps tombstones.
func (w *Worker) describeState(ctx context.Context, adm *kadm.Client) (cluster string, maxAge time.Duration, err error) {
	meta, err := adm.BrokerMetadata(ctx)
	if err != nil {
		return "", 0, fmt.Errorf("asking for the cluster's id: %w", err)
	}
	topic := ChangelogTopic(w.top)
	configs, err := adm.DescribeTopicConfigs(ctx, topic)
	if err != nil {
		return "", 0, fmt.Errorf("asking for the configuration of %s: %w", topic, err)
	}
	keep := 24 * time.Hour // the brokers' default
	compacted := true
	if c, err := configs.On(topic, nil); err == nil && c.Err == nil { // without the right to ask, the defaults are assumed
		for _, x := range c.Configs {
			switch v := x.MaybeValue(); x.Key {
			case "delete.retention.ms":
				if ms, err := strconv.ParseInt(v, 10, 64); err == nil {
					keep = time.Duration(ms) * time.Millisecond
				}
			case "cleanup.policy":
				compacted = strings.Contains(v, "compact")
			}
		}
	}
	if !compacted {
		return meta.Cluster, 0, nil // nothing of it goes before it all does
	}
	return meta.Cluster, max(keep/2, time.Millisecond), nil
}

var errEmptyTopic = errors.New("it has no partitions yet")

// leave gives the slot in the group up, so that the others need not wait for the session timeout.
func (w *Worker) leave(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	cl, err := kgo.NewClient(w.opts...)
	if err != nil {
		return fmt.Errorf("making a client: %w", err)
	}
	defer cl.Close()
	left, err := kadm.NewClient(cl).LeaveGroup(ctx, kadm.LeaveGroup(w.cfg.Group).InstanceIDs(w.cfg.InstanceID).Reason("scale-in"))
	if err == nil {
		err = left.Error()
	}
	if err != nil {
		return fmt.Errorf("leaving group %s: %w", w.cfg.Group, err)
	}
	return nil
}

// release lets go of the slot that a former life of this process, or a former session of it, has in a group of KIP-848: the broker gives it to nobody else before that one's
// session has timed out (45 s by its default), unless the member says that it will be back. It says so in the name of that member, whose id the group knows; a classic group
// does as much by itself whenever an instance joins. A process that is alive in the slot finds its membership lost, and in its next session another member in its place: that
// ends it.
func (w *Worker) release(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, w.cfg.SessionTimeout)
	defer cancel()
	cl, err := kgo.NewClient(w.opts...)
	if err != nil {
		return fmt.Errorf("making a client: %w", err)
	}
	defer cl.Close()
	groups, err := kadm.NewClient(cl).DescribeConsumerGroups(ctx, w.cfg.Group)
	if err != nil {
		return fmt.Errorf("asking who holds the slot: %w", err)
	}
	group := groups[w.cfg.Group]
	if group.Err != nil && !errors.Is(group.Err, kerr.GroupIDNotFound) { // as long as the coordinator loads the group, say
		return fmt.Errorf("asking who holds the slot: %w", group.Err)
	}
	for _, m := range group.Members {
		if m.InstanceID == nil || *m.InstanceID != w.cfg.InstanceID {
			continue
		}
		if w.member != "" && m.MemberID != w.member {
			return fault.Newf("MR-STR-001", "member %s has joined group %s in slot %s", m.MemberID, w.cfg.Group, w.cfg.InstanceID)
		}
		req := kmsg.NewPtrConsumerGroupHeartbeatRequest()
		req.Group, req.MemberID, req.InstanceID, req.MemberEpoch = w.cfg.Group, m.MemberID, m.InstanceID, -2 // a static member that goes and comes back
		resp, err := req.RequestWith(ctx, cl)
		if err == nil {
			err = kerr.ErrorForCode(resp.ErrorCode)
		}
		if err != nil && !errors.Is(err, kerr.UnknownMemberID) {
			return fmt.Errorf("releasing the slot of a former life in group %s: %w", w.cfg.Group, err)
		}
	}
	return nil
}
