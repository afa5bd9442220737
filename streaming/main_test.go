package streaming

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

// TestMain runs the tests; with MILLRACE_STREAM_TEST_REST everything in every store is at rest between two transactions.
func TestMain(m *testing.M) {
	if os.Getenv("MILLRACE_STREAM_TEST_REST") != "" {
		restNormally = restAtOnce
	}
	goleak.VerifyTestMain(m)
}

// restAtOnce lets everything rest as soon as it is committed.
var restAtOnce = restPolicy{pass: 1, work: 1 << 40}
