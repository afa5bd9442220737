package activities

import (
	"os"
	"testing"

	"millrace/internal/embedded"
)

func TestMain(m *testing.M) {
	embedded.MaybeChild()
	os.Exit(m.Run())
}
