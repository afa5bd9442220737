package gateway

import (
	"encoding/json"
	"io"
	"math"
	"net/http"
	"strconv"
	"time"
)

// answer is what a request is answered with.
type answer struct {
	code       int
	accepted   int // events
	failed     int // failed events kept
	reason     string
	problems   []problem // strict
	retryAfter time.Duration
}

// refusal is a strict client's error for the whole request.
func refusal(code int, reason string) answer {
	return answer{code: code, problems: []problem{{Reason: reason}}}
}

// later asks the client to come again.
func later(reason string, after time.Duration) answer {
	return answer{code: http.StatusTooManyRequests, reason: reason, retryAfter: after}
}

// pixel is the smallest picture: 43 bytes of GIF, one transparent dot.
const pixel = "GIF89a\x01\x00\x01\x00\x80\x00\x00\xff\xff\xff\x00\x00\x00!\xf9\x04\x01\x00\x00\x00\x00,\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02D\x01\x00;"

// picture sends the answer to an image element, which shows nothing else. Errors stay what they are.
func (a answer) picture(w http.ResponseWriter) {
	if a.code != http.StatusOK {
		a.write(w)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "image/gif")
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Length", strconv.Itoa(len(pixel)))
	_, _ = io.WriteString(w, pixel) // if the client is gone there is nobody to tell
}

// maxRetryAfter is the longest time in seconds that clients are asked to wait: Segment's take no notice of more.
const maxRetryAfter = 300

// write sends the answer. Every SDK takes {"success":true}; what else is in it is for people.
func (a answer) write(w http.ResponseWriter) {
	h := w.Header()
	h["Content-Type"] = jsonType
	if a.retryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(min(int(math.Ceil(a.retryAfter.Seconds())), maxRetryAfter)))
	}
	var body []byte
	switch {
	case a.code == http.StatusOK:
		body = append(body, `{"success":true,"accepted":`...)
		body = strconv.AppendInt(body, int64(a.accepted), 10)
		body = append(body, `,"failed":`...)
		body = strconv.AppendInt(body, int64(a.failed), 10)
		body = append(body, '}')
	case a.problems != nil:
		body, _ = json.Marshal(map[string]any{"success": false, "errors": a.problems}) // strings and numbers always marshal
	default:
		body, _ = json.Marshal(map[string]any{"success": false, "reason": a.reason})
	}
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(a.code)
	_, _ = w.Write(body) // if the client is gone there is nobody to tell
}

var jsonType = []string{"application/json"}
