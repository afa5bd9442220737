package streaming

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	"millrace/internal/fault"
)

// A broker may end a transaction without telling all of its partitions. Apache Kafka 4.3.1 does when it stops or starts in the middle of one and there is no other replica: a
// partition that has no leader at that moment is taken for deleted (TransactionMarkerChannelManager), so it never gets the marker. Its readers wait there for ever, and so does
// the group, if its offsets are among them. Nothing but a later transaction of the same producer that reaches the same partitions ends that. So each session looks for such
// partitions, and ends an empty transaction in all of them, as the one before was decided.

// decided is how the last transaction of the slot ended, or will: what the coordinator says before a new session takes it over, which makes it forget.
func (w *Worker) decided(ctx context.Context, adm *kadm.Client) error {
	state := ""
	err := patiently(ctx, func() error {
		all, err := adm.DescribeTransactions(ctx, w.cfg.TransactionalID)
		var shards *kadm.ShardErrors
		if errors.As(err, &shards) && len(shards.Errs) > 0 {
			err = shards.Errs[0].Err
		}
		if err != nil {
			return err
		}
		state = all[w.cfg.TransactionalID].State
		return all[w.cfg.TransactionalID].Err
	})
	switch {
	case errors.Is(err, kerr.TransactionalIDNotFound):
		w.last = ""
	case err != nil:
		return fmt.Errorf("asking for the last transaction of %s: %w", w.cfg.TransactionalID, err)
	case state != "Empty": // that says nothing of the one before, which this process may have seen
		w.last = state
	}
	return nil
}

// describes tells whether the brokers can be asked about transactions (Apache Kafka 3.0). With others nothing is looked for.
func describes(ctx context.Context, adm *kadm.Client) (bool, error) {
	all, err := adm.ApiVersions(ctx)
	if err != nil {
		return false, fmt.Errorf("asking what the brokers can do: %w", err)
	}
	for _, b := range all {
		for _, key := range []kmsg.Key{kmsg.DescribeProducers, kmsg.DescribeTransactions} {
			if _, ok := b.KeyMaxVersion(key.Int16()); !ok && b.Err == nil {
				return false, nil
			}
		}
	}
	return true, nil
}

// unended lists the partitions in which a transaction of a producer is open, and whether offsets of groups are among them. It is to be called when the producer has none.
func unended(ctx context.Context, adm *kadm.Client, producer int64) (kadm.TopicsSet, bool, error) {
	topics, err := adm.ListTopicsWithInternal(ctx)
	if err != nil {
		return nil, false, fmt.Errorf("listing topics: %w", err)
	}
	all, err := adm.DescribeProducers(ctx, topics.TopicsSet())
	if err != nil {
		return nil, false, fmt.Errorf("asking for open transactions: %w", err)
	}
	open, group := kadm.TopicsSet{}, false
	all.EachProducer(func(p kadm.DescribedProducer) {
		switch {
		case p.ProducerID != producer || p.CurrentTxnStartOffset < 0:
		case topics[p.Topic].IsInternal:
			group = true
		default:
			open.Add(p.Topic, p.Partition)
		}
	})
	return open, group, nil
}

// heal ends what the broker has left open of the slot's transactions. The session has just taken the slot over and begun nothing.
func (w *Worker) heal(ctx context.Context, adm *kadm.Client, id int64, epoch int16) error {
	open, group, err := unended(ctx, adm, id)
	if err != nil || len(open) == 0 && !group {
		return err
	}
	commit := false
	switch w.last {
	case "PrepareCommit", "CompleteCommit":
		commit = true
	case "Ongoing", "PrepareAbort", "CompleteAbort", "PrepareEpochFence":
	default:
		return fault.Newf(hangingID, "a transaction of %s is open in %v (offsets: %v), and how it was to end is not known (%q)", w.cfg.TransactionalID, open, group, w.last)
	}
	cl, err := kgo.NewClient(append(append([]kgo.Opt{}, w.opts...), kgo.MaxVersions(kversion.V3_4_0()))...) // later versions of these requests are for brokers, or end more than one transaction
	if err != nil {
		return fmt.Errorf("making a client: %w", err)
	}
	defer cl.Close()
	steps := []func() error{}
	if len(open) > 0 {
		steps = append(steps, func() error {
			req := kmsg.NewPtrAddPartitionsToTxnRequest()
			req.TransactionalID, req.ProducerID, req.ProducerEpoch = w.cfg.TransactionalID, id, epoch
			for topic, parts := range open {
				t := kmsg.NewAddPartitionsToTxnRequestTopic()
				t.Topic = topic
				for p := range parts {
					t.Partitions = append(t.Partitions, p)
				}
				req.Topics = append(req.Topics, t)
			}
			resp, err := req.RequestWith(ctx, cl)
			if err != nil {
				return err
			}
			for _, t := range resp.Topics {
				for _, p := range t.Partitions {
					if p.ErrorCode != 0 && p.ErrorCode != kerr.OperationNotAttempted.Code {
						return kerr.ErrorForCode(p.ErrorCode)
					}
				}
			}
			return kerr.ErrorForCode(resp.ErrorCode)
		})
	}
	if group {
		steps = append(steps, func() error {
			req := kmsg.NewPtrAddOffsetsToTxnRequest()
			req.TransactionalID, req.ProducerID, req.ProducerEpoch, req.Group = w.cfg.TransactionalID, id, epoch, w.cfg.Group
			resp, err := req.RequestWith(ctx, cl)
			if err != nil {
				return err
			}
			return kerr.ErrorForCode(resp.ErrorCode)
		})
	}
	steps = append(steps, func() error {
		req := kmsg.NewPtrEndTxnRequest()
		req.TransactionalID, req.ProducerID, req.ProducerEpoch, req.Commit = w.cfg.TransactionalID, id, epoch, commit
		resp, err := req.RequestWith(ctx, cl)
		if err != nil {
			return err
		}
		return kerr.ErrorForCode(resp.ErrorCode)
	})
	for _, step := range steps {
		if err := patiently(ctx, step); err != nil {
			return fmt.Errorf("ending what is open of the last transaction of %s: %w", w.cfg.TransactionalID, err)
		}
	}
	w.log.Warn("the broker had left a transaction open and it is ended now", "commit", commit, "topics", len(open), "offsets", group)
	return nil
}

// patiently repeats a request while the coordinator is not there, or busy with the transaction before.
func patiently(ctx context.Context, f func() error) error {
	for {
		err := f()
		if err == nil || !kerr.IsRetriable(err) && !errors.Is(err, kerr.ConcurrentTransactions) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(20 * time.Millisecond):
		}
	}
}
