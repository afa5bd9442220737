package event

// Stored is a row as a store has it: an event, or a failed event, with its place on the topic that the stores are fed from. Reconciliation carries rows between stores in
// this form.
type Stored struct {
	Event  *Event  // of events_*
	Failed *Failed // of failed_events

	Topic     string // events.*
	Partition int32
	Offset    int64
}

// Raw is the row's place on its raw topic.
func (s *Stored) Raw() (topic string, partition int32, offset int64) {
	if s.Failed != nil {
		return s.Failed.RawTopic, s.Failed.RawPartition, s.Failed.RawOffset
	}
	return s.Event.RawTopic, s.Event.RawPartition, s.Event.RawOffset
}

// IngestedAt is when the platform knew it.
func (s *Stored) IngestedAt() int64 {
	if s.Failed != nil {
		return s.Failed.IngestedAt
	}
	return s.Event.IngestedAt
}

// Dropped says whether the row is of an erased subject.
func (s *Stored) Dropped(e *Erased) bool {
	if s.Failed != nil {
		return e.DropsFailed(s.Failed)
	}
	return e.DropsEvent(s.Event)
}
