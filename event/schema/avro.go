package schema

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// AVSC renders the subject's Avro schema, deterministically: one field a line, nullable fields as ["null", T] with default null.
func (s Subject) AVSC() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "{\"type\":\"record\",\"name\":%q,\"namespace\":\"millrace\",\"fields\":[\n", s.Record)
	writeFields(&b, s.Fields, s.Record)
	b.WriteString("]}\n")
	return b.Bytes()
}

func writeFields(b *bytes.Buffer, fs []Field, record string) {
	for i, f := range fs {
		t := f.avro(record)
		if f.Null {
			t = `["null",` + t + `],"default":null`
		}
		if f.Zero {
			t += `,"default":0`
		}
		doc := ""
		if f.Doc != "" {
			j, _ := json.Marshal(f.Doc) // a string always marshals
			doc = `,"doc":` + string(j)
		}
		comma := ","
		if i == len(fs)-1 {
			comma = ""
		}
		fmt.Fprintf(b, "  {\"name\":%q,\"type\":%s%s}%s\n", f.Name, t, doc, comma)
	}
}

func (f Field) avro(record string) string {
	switch f.Type {
	case Int:
		return `"int"`
	case Long:
		return `"long"`
	case Bool:
		return `"boolean"`
	case Timestamp:
		return `{"type":"long","logicalType":"timestamp-micros"}`
	case Amount:
		return `{"type":"long","millrace":"micros"}`
	case Total:
		return fmt.Sprintf(`{"type":"fixed","name":"%s_%s","size":16,"logicalType":"decimal","precision":38,"scale":6}`, record, f.Name)
	case Blob:
		return `"bytes"`
	case Double:
		return `"double"`
	case StringList:
		return `{"type":"array","items":"string"}`
	case ItemList:
		var b bytes.Buffer
		fmt.Fprintf(&b, "{\"type\":\"array\",\"items\":{\"type\":\"record\",\"name\":\"%s_item\",\"fields\":[\n", record)
		writeFields(&b, itemFields, record)
		b.WriteString("  ]}}")
		return b.String()
	default:
		return `"string"`
	}
}
