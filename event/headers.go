package event

import "encoding/binary"

// Record headers of raw.* and events.* topics: hot code routes by them without decoding the value.
const (
	HeaderCategory = "ca" // category name, UTF-8
	HeaderTenant   = "tn" // tenant, UTF-8
	HeaderReceived = "rx" // received_at µs, int64 big-endian
	HeaderLane     = "ln" // u8: 0 live, 1 replay
	HeaderGateway  = "gw" // gateway instance u32 ‖ sequence u64, big-endian
	HeaderTrace    = "tp" // trace id 16 ‖ span id 8 ‖ flags 1, when sampled
)

// AppendReceived is the value of header rx.
func AppendReceived(dst []byte, us int64) []byte {
	return binary.BigEndian.AppendUint64(dst, uint64(us))
}

// ParseReceived reads header rx.
func ParseReceived(b []byte) (int64, bool) {
	if len(b) != 8 {
		return 0, false
	}
	return int64(binary.BigEndian.Uint64(b)), true
}

// AppendGateway is the value of header gw.
func AppendGateway(dst []byte, instance uint32, sequence uint64) []byte {
	dst = binary.BigEndian.AppendUint32(dst, instance)
	return binary.BigEndian.AppendUint64(dst, sequence)
}

// ParseGateway reads header gw.
func ParseGateway(b []byte) (instance uint32, sequence uint64, ok bool) {
	if len(b) != 12 {
		return 0, 0, false
	}
	return binary.BigEndian.Uint32(b), binary.BigEndian.Uint64(b[4:]), true
}
