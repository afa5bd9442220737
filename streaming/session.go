package streaming

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"millrace/internal/failpoint"
	"millrace/internal/fault"
)

// session is one membership of the group with one producer, a transactional one unless duplicates are allowed. After any error of it there is a new one: whether its last
// transaction committed is then asked of the broker, never of what was counted here.
type session struct {
	w      *Worker
	cl     *kgo.Client
	txn    *kgo.GroupTransactSession // nil at least once
	opened chan struct{}             // cl is set; the group's goroutine may be faster
	closed chan struct{}             // nobody handles events any more

	peek      *peeker // nil without Topology.Announced
	interrupt interrupt

	mu       sync.Mutex
	events   []event
	produced error // first refusal of an output
}

// event is what the group's goroutine tells the worker's loop.
type event struct {
	assigned map[int32][]inputStart // by partition number
	gone     []int32
	lost     bool          // the membership is gone, and everything with it
	done     chan struct{} // if not nil, the group waits for this to be closed
	err      error
}

// inputStart is where an input of a task begins.
type inputStart struct {
	in     int
	offset int64
	fresh  bool // no offset is committed: it is the log's start
}

// openSession joins the group and takes over the transactional id. The second must be done at once: it aborts what a former life left
// open, and the group's offsets cannot be read while that is undecided.
func (w *Worker) openSession(ctx context.Context) (*session, error) {
	s := &session{w: w, opened: make(chan struct{}), closed: make(chan struct{})}
	c := w.cfg
	opts := append([]kgo.Opt{}, w.opts...)
	opts = append(opts,
		kgo.ConsumerGroup(c.Group), kgo.InstanceID(c.InstanceID),
		kgo.SessionTimeout(c.SessionTimeout), kgo.HeartbeatInterval(min(3*time.Second, c.SessionTimeout/10)), kgo.RebalanceTimeout(c.RebalanceTimeout),
		kgo.ConsumeTopics(w.top.Inputs...), kgo.Balancers(newCopartitioned(&w.top)), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		// Control records make the position exact: without them the end of a partition that ends in markers is never reached.
		kgo.KeepControlRecords(),
		// Positions are always set by hand (adjust); out of range is an error, never a jump.
		kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()), kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.FetchMaxBytes(4<<20), kgo.FetchMaxPartitionBytes(512<<10), // compressed: in memory it is many times that, and twice as much while the next is fetched
		kgo.FetchMaxWait(200*time.Millisecond), // a partition that is resumed waits for the end of the fetch under way
		kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(0), kgo.ProducerBatchCompression(kgo.SnappyCompression()), kgo.MaxBufferedRecords(1_000_000),
		kgo.RecordDeliveryTimeout(c.TransactionTimeout), // what was not taken within the transaction's life never can be
		kgo.AdjustFetchOffsetsFn(s.adjust), kgo.OnPartitionsRevoked(s.revoked), kgo.OnPartitionsLost(s.lost),
	)
	if c.Protocol == ProtocolConsumer {
		// Of the broker's assignors, range is the one that keeps equal partition numbers of all inputs together.
		opts = append(opts, kgo.ServerSideBalancer(), kgo.Balancers(kgo.RangeBalancer()))
		if err := w.release(ctx); err != nil {
			return nil, err
		}
	}
	var err error
	if c.Guarantee == AtLeastOnce {
		if s.cl, err = kgo.NewClient(append(opts, kgo.DisableAutoCommit(), kgo.RecordDeliveryTimeout(max(c.TransactionTimeout, c.SessionTimeout)))...); err != nil {
			return nil, errors.Join(errPermanent, fmt.Errorf("opening a session: %w", err))
		}
		close(s.opened)
		return s, nil
	}
	opts = append(opts, kgo.TransactionalID(c.TransactionalID), kgo.TransactionTimeout(c.TransactionTimeout))
	if s.txn, err = kgo.NewGroupTransactSession(opts...); err != nil {
		return nil, errors.Join(errPermanent, fmt.Errorf("opening a transactional session: %w", err)) // options, not brokers
	}
	s.cl = s.txn.Client()
	close(s.opened)
	ctx, cancel := context.WithTimeout(ctx, c.SessionTimeout)
	defer cancel()
	if err := w.takeOver(ctx, s.cl); err != nil {
		s.close()
		return nil, err
	}
	if err := s.txn.Begin(); err != nil {
		s.close()
		return nil, fmt.Errorf("beginning a transaction: %w", err)
	}
	return s, nil
}

// takeOver ends all transactions of former lives.
func (w *Worker) takeOver(ctx context.Context, cl *kgo.Client) error {
	own, err := kgo.NewClient(w.opts...) // a member of no group may ask without waiting for its turn
	if err != nil {
		return fmt.Errorf("making a client: %w", err)
	}
	defer own.Close()
	adm := kadm.NewClient(own)
	can, err := describes(ctx, adm)
	if err != nil {
		return err
	}
	if can {
		if err := w.decided(ctx, adm); err != nil {
			return err
		}
	}
	id, epoch, err := cl.ProducerID(ctx)
	if err != nil {
		return fmt.Errorf("taking over the transactional id %s: %w", w.cfg.TransactionalID, err)
	}
	if !can {
		return nil
	}
	return w.heal(ctx, adm, id, epoch)
}

// close ends the session without a word to the broker: a static member does not leave, an open transaction is aborted by the next
// session (or by its timeout).
func (s *session) close() {
	close(s.closed)
	if s.txn != nil {
		s.txn.Close()
	} else {
		s.cl.Close()
	}
}

func (s *session) push(e event) {
	s.mu.Lock()
	s.events = append(s.events, e)
	s.mu.Unlock()
	s.awake()
}

// awake ends a poll that waits.
func (s *session) awake() {
	select {
	case s.w.wake <- struct{}{}:
	default:
	}
}

func (s *session) takeEvents() []event {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.events
	s.events = nil
	return e
}

// adjust is called after each join with the committed offsets of what was assigned, before any of it is read. It makes each position
// explicit, and stops reading until the task is restored.
func (s *session) adjust(ctx context.Context, offsets map[string]map[int32]kgo.Offset) (map[string]map[int32]kgo.Offset, error) {
	<-s.opened
	starts, err := s.w.admin(s).ListStartOffsets(ctx, s.w.top.Inputs...)
	if err == nil {
		err = starts.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("listing where the inputs start: %w", err)
	}
	assigned := map[int32][]inputStart{}
	pause := map[string][]int32{}
	for in, topic := range s.w.top.Inputs {
		for p, o := range offsets[topic] {
			first, ok := starts.Lookup(topic, p)
			if !ok {
				return nil, fmt.Errorf("listing where the inputs start: no answer for %s/%d", topic, p)
			}
			x := inputStart{in: in, offset: o.EpochOffset().Offset}
			switch {
			case x.offset < 0:
				x.offset, x.fresh = first.Offset, true
			case x.offset < first.Offset:
				s.push(event{err: fault.Newf("MR-STR-004", "the group's offset of %s/%d is %d, the topic begins at %d", topic, p, x.offset, first.Offset)})
			}
			offsets[topic][p] = kgo.NewOffset().At(x.offset).WithEpoch(-1)
			assigned[p] = append(assigned[p], x)
			pause[topic] = append(pause[topic], p)
		}
	}
	s.cl.PauseFetchPartitions(pause)
	s.push(event{assigned: assigned})
	return offsets, nil
}

func (s *session) revoked(ctx context.Context, _ *kgo.Client, parts map[string][]int32) {
	e := event{gone: gone(parts)}
	if len(e.gone) == 0 {
		return
	}
	if s.txn != nil {
		s.push(e) // what is open will be aborted
		return
	}
	// Without transactions the successor would read what is on its way behind its back: it waits until all of that is written and the offsets say so.
	e.done = make(chan struct{})
	s.push(e)
	wait := time.NewTimer(s.w.cfg.RebalanceTimeout / 2)
	defer wait.Stop()
	select {
	case <-e.done:
	case <-s.closed:
	case <-ctx.Done():
	case <-wait.C:
	}
}

func (s *session) lost(_ context.Context, _ *kgo.Client, parts map[string][]int32) {
	s.push(event{gone: gone(parts), lost: true})
}

func gone(parts map[string][]int32) (all []int32) {
	for _, ps := range parts {
		all = append(all, ps...)
	}
	return all
}

// produce sends records; a refusal is found at the end.
func (s *session) produce(ctx context.Context, recs []*kgo.Record) {
	for _, r := range recs {
		s.cl.Produce(ctx, r, s.promise)
	}
}

func (s *session) promise(r *kgo.Record, err error) {
	if err == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.produced == nil {
		s.produced = fmt.Errorf("producing to %s/%d: %w", r.Topic, r.Partition, err)
	}
}

// errPermanent marks what no other session can mend.
var errPermanent = errors.New("the stream worker cannot run")

// errNotMember: the hook found no membership, so nothing may be committed.
var errNotMember = errors.New("not a member of the group")

// commit ends the transaction with the given offsets. false without an error: it was aborted, for the group was rebalancing. After an
// error the outcome is unknown.
func (s *session) commit(ctx context.Context, offsets []kmsg.TxnOffsetCommitRequestTopic) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, s.w.cfg.TransactionTimeout+5*time.Second)
	defer cancel()
	if err := s.flush(ctx); err != nil {
		return false, err // End would commit what was not refused
	}
	failpoint.Hit("streaming.commit.before")
	ok, err := s.txn.End(kgo.PreTxnCommitFnContext(ctx, func(req *kmsg.TxnOffsetCommitRequest) error {
		// Brokers accept offsets of no member at all, which would unfence a stale owner.
		if req.Generation < 0 || req.MemberID == "" {
			return errNotMember
		}
		// The session counts what was polled; what counts is what was processed.
		req.Topics = offsets
		return nil
	}), kgo.TryCommit)
	if err == nil {
		err = errors.Join(failpoint.Err("streaming.commit.unknown"), s.w.afterEnd(ok))
	}
	if err != nil {
		return false, fmt.Errorf("ending the transaction: %w", err)
	}
	failpoint.Hit("streaming.commit.after")
	return ok, s.begin()
}

// flush waits until all that was produced is written.
func (s *session) flush(ctx context.Context) error {
	if err := s.cl.Flush(ctx); err != nil {
		return fmt.Errorf("flushing outputs: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.produced
}

// abort drops the open transaction.
func (s *session) abort(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.w.cfg.TransactionTimeout+5*time.Second)
	defer cancel()
	if _, err := s.txn.End(ctx, kgo.TryAbort); err != nil {
		return fmt.Errorf("aborting the transaction: %w", err)
	}
	s.mu.Lock()
	s.produced = nil // aborted records among them
	s.mu.Unlock()
	return s.begin()
}

func (s *session) begin() error {
	if err := s.txn.Begin(); err != nil {
		return fmt.Errorf("beginning a transaction: %w", err)
	}
	return nil
}

// fenced says that somebody else took the transactional id over, or that the broker gave up on it.
func fenced(err error) bool {
	return errors.Is(err, kerr.ProducerFenced) || errors.Is(err, kerr.InvalidProducerEpoch)
}

// settle decides what a fenced session, closed by now, means. Of two processes in one slot each takes the transactional id from the
// other with every new session, so that alone cannot say who is to end, and a count of it may end both. The group can: it knows one
// member for the slot, the one that joined last. Whoever finds another there ends; the one that is there opens another session.
func (w *Worker) settle(ctx context.Context, member string, err error) error {
	if member == "" {
		return err // it had not joined
	}
	ctx, cancel := context.WithTimeout(ctx, w.cfg.SessionTimeout)
	defer cancel()
	cl, cerr := kgo.NewClient(w.opts...)
	if cerr != nil {
		return errors.Join(err, fmt.Errorf("making a client: %w", cerr))
	}
	defer cl.Close()
	groups, derr := kadm.NewClient(cl).DescribeGroups(ctx, w.cfg.Group)
	if derr != nil {
		return errors.Join(err, fmt.Errorf("asking who holds the slot: %w", derr))
	}
	for _, m := range groups[w.cfg.Group].Members {
		if m.InstanceID != nil && *m.InstanceID == w.cfg.InstanceID && m.MemberID != member {
			return fault.New("MR-STR-001", err)
		}
	}
	return err
}

// fatalErr gives the fault that must end the worker, or nil: another session may do.
func (w *Worker) fatalErr(err error) error {
	if _, ok := fault.IDOf(err); ok {
		return err
	}
	switch {
	case errors.Is(err, errPermanent):
		return err
	case errors.Is(err, kerr.FencedInstanceID):
		return fault.New("MR-STR-001", err)
	case errors.Is(err, kerr.MessageTooLarge), errors.Is(err, kerr.RecordListTooLarge), errors.Is(err, kerr.InvalidTopicException),
		errors.Is(err, kerr.TopicAuthorizationFailed), errors.Is(err, kerr.TransactionalIDAuthorizationFailed), errors.Is(err, kerr.GroupAuthorizationFailed):
		return fault.New("MR-STR-007", err)
	case errors.Is(err, kerr.OffsetOutOfRange):
		return fault.New("MR-STR-004", err)
	}
	// An unknown topic may be a broker that is starting: the next session looks at the topics and their ids first.
	var loss *kgo.ErrDataLoss
	if errors.As(err, &loss) {
		return fault.New("MR-STR-004", err)
	}
	return nil
}
