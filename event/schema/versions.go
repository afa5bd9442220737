package schema

import (
	"embed"
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"
)

// avscFS holds every version of every subject ever committed: avsc/<subject>/<version>.avsc.
//
//go:embed avsc
var avscFS embed.FS

// Versions lists the committed versions of a topic's value schema, oldest (1) first. The last one is the current one.
func Versions(topic string) ([]string, error) {
	dir := "avsc/" + topic + "-value"
	entries, err := fs.ReadDir(avscFS, dir)
	if err != nil {
		return nil, fmt.Errorf("schema versions of topic %s: %w", topic, err)
	}
	out := make([]string, len(entries))
	for _, e := range entries {
		n, err := strconv.Atoi(strings.TrimSuffix(e.Name(), ".avsc"))
		if err != nil || n < 1 || n > len(entries) {
			return nil, fmt.Errorf("schema file %s/%s is not numbered 1 to %d", dir, e.Name(), len(entries))
		}
		text, err := avscFS.ReadFile(path.Join(dir, e.Name()))
		if err != nil {
			return nil, fmt.Errorf("schema file %s/%s: %w", dir, e.Name(), err)
		}
		out[n-1] = string(text)
	}
	return out, nil
}
