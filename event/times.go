package event

import "time"

// Three times: occurred_at is event time, received_at when the gateway accepted it, ingested_at when the platform knew it (the
// broker's timestamp of the raw record). Everything closed, incremental or point-in-time goes by ingested_at.

// Lane separates live traffic from history. Only the live lane moves watermarks and fires alerts.
type Lane uint8

// The lanes; the numbers are the wire form of header "ln".
const (
	Live   Lane = 0
	Replay Lane = 1
)

// String is the lane's name.
func (l Lane) String() string {
	if l == Replay {
		return "replay"
	}
	return "live"
}

// LiveWindow is how old an event may be on arrival to count as live.
const LiveWindow = 24 * time.Hour

// MaxAhead is how far event time may be ahead of arrival.
const MaxAhead = 24 * time.Hour

// MinOccurred is the earliest event time that is accepted: 1990-01-01.
var MinOccurred = time.Date(1990, 1, 1, 0, 0, 0, 0, time.UTC).UnixMicro()

// TimeOK says whether an event time is stored as given; outside it is a failed event "bad_time".
func TimeOK(occurred, received int64) bool {
	return occurred >= MinOccurred && occurred <= received+MaxAhead.Microseconds()
}

// LaneOf is the lane of an event that no header has put on the replay lane.
func LaneOf(occurred, received int64) Lane {
	if received-occurred > LiveWindow.Microseconds() {
		return Replay
	}
	return Live
}

// WatermarkTime is the time by which an event moves watermarks: a clock a day ahead harms nobody.
func WatermarkTime(occurred, received int64) int64 { return min(occurred, received) }
