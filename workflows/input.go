package workflows

import (
	"strings"

	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"

	"millrace/workflows/name"
)

// inputOf reads what a workflow was started with, as strictly as the command line does: the UI and every other client send any JSON. Workflows take their input raw and
// begin with this. The failure lists all problems and is final: the same input would fail again.
func inputOf[T name.Input](raw converter.RawValue) (T, error) {
	var none T
	text, err := textOf(raw)
	if err != nil {
		return none, err
	}
	in, err := name.Decode[T](text)
	if err != nil {
		return none, invalid(err.Error())
	}
	return in, nil
}

// textOf is the JSON of what a workflow was started with, empty if that was nothing.
func textOf(raw converter.RawValue) ([]byte, error) {
	p := raw.Payload()
	switch encoding := string(p.GetMetadata()[converter.MetadataEncoding]); encoding {
	case converter.MetadataEncodingJSON:
		return p.GetData(), nil
	case "", converter.MetadataEncodingNil: // started without an input
		return nil, nil
	default:
		return nil, invalid("the input is encoded as " + encoding + ", not as json/plain")
	}
}

func invalid(problems string) error {
	return temporal.NewNonRetryableApplicationError(strings.ReplaceAll(problems, "\n", "; "), name.InvalidInput, nil)
}
