package embedded_test

import (
	"testing"

	"go.uber.org/goleak"

	"millrace/internal/embedded"
)

func TestMain(m *testing.M) {
	embedded.MaybeChild()
	goleak.VerifyTestMain(m)
}
