// Package registry is a schema registry for one machine that speaks Confluent's REST API.
//
// It stands beside the data flow: whoever writes or reads Avro on a topic (gateway, engine, sinks, other people's consumers)
// asks it for the id of a schema or for the schema of an id. Schemas live in one Kafka topic, `_schemas`, in Confluent's record
// format, so that the registry has no store of its own and a Confluent registry could take the topic over. Production sets the
// address of such a registry instead; nothing else changes.
//
// A Registry is an http.Handler over an in-memory view of the topic. Run keeps the view current and owns the single writer;
// a write is answered only when every in-sync replica has it and the registry's own consumer has read it back.
//
// What it does not do: JSON Schema and Protobuf, contexts other than the default one, data contracts (metadata and rule sets),
// schema GUIDs, authentication. A request for one of these gets a 4xx that says so.
package registry
