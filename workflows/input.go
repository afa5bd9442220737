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
	p := raw.Payload()
	var text []byte
	switch encoding := string(p.GetMetadata()[converter.MetadataEncoding]); encoding {
	case converter.MetadataEncodingJSON:
		text = p.GetData()
	case "", converter.MetadataEncodingNil: // started without an input
	default:
		return none, invalid("the input is encoded as " + encoding + ", not as json/plain")
	}
	in, err := name.Decode[T](text)
	if err != nil {
		return none, invalid(err.Error())
	}
	return in, nil
}

func invalid(problems string) error {
	return temporal.NewNonRetryableApplicationError(strings.ReplaceAll(problems, "\n", "; "), name.InvalidInput, nil)
}
