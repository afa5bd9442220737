// Package gateway takes events over HTTP and puts them into Kafka. It stands at the head of the data flow: producers talk to nothing else.
//
// A request becomes records of raw.<category> topics, in one pass: split, or translated from the format of its path (package event/wire), decoded, encoded
// (event/schema), produced. A text that is no event becomes a typed failed event on raw.failed and its siblings go on. The answer is 200 once every record is
// durable: acknowledged by the broker with acks=all, or fsynced into the local spool (package gateway/spool), which a drainer empties when the broker is back.
// Delivery is at least once; the hot topology removes duplicates by event_id. What is acknowledged survives the loss of process, machine and broker, but not of
// the spool's volume while the broker is away.
package gateway
