package sink

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"millrace/internal/fault"
)

// clickhouseIntent is what the sink tells the group before it inserts: this range is about to be inserted as one block of these columns. It is the metadata of
// the committed offset, which is the range's first one. Whoever finds it inserts exactly these rows and columns again, so that the block's token means the same.
type clickhouseIntent struct {
	lo, hi  int64
	columns []byte // bit i: the column with field id i
}

// The group's metadata holds 4096 bytes; brokers that do not enforce it keep more than others read back.
const maxOffsetMetadata = 4096

const clickhouseIntentPrefix = "millrace1 "

func (i clickhouseIntent) encode() (string, error) {
	s := fmt.Sprintf("%s%d-%d %s", clickhouseIntentPrefix, i.lo, i.hi, hex.EncodeToString(i.columns))
	if len(s) > maxOffsetMetadata {
		return "", fmt.Errorf("note of an insert has %d bytes, the group keeps %d", len(s), maxOffsetMetadata)
	}
	return s, nil
}

// parseClickhouseIntent reads the metadata of a committed offset. Metadata that we did not write is no intent.
func parseClickhouseIntent(offset int64, metadata string) (*clickhouseIntent, error) {
	if !strings.HasPrefix(metadata, "millrace") {
		return nil, nil
	}
	var i clickhouseIntent
	var columns string
	if _, err := fmt.Sscanf(metadata, clickhouseIntentPrefix+"%d-%d %s", &i.lo, &i.hi, &columns); err != nil {
		return nil, fault.Newf("MR-CH-007", "note %q at offset %d: %w", metadata, offset, err)
	}
	var err error
	if i.columns, err = hex.DecodeString(columns); err != nil {
		return nil, fault.Newf("MR-CH-007", "note %q at offset %d: %w", metadata, offset, err)
	}
	if i.lo != offset || i.hi <= i.lo {
		return nil, fault.New("MR-CH-007", errors.New("note "+metadata+" is of another offset"))
	}
	return &i, nil
}

func clickhouseHasID(columns []byte, id int) bool {
	return id/8 < len(columns) && columns[id/8]&(1<<(id%8)) != 0
}
