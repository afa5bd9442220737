// Package simulate is the traffic: a seeded shop full of shoppers, and an importer of files, both of which send native JSON events to a gateway and keep
// exact books of what it acknowledged.
//
// It stands before the gateway, where a shop's own servers and SDKs would. A run is a chain of
//
//	generator (or file reader) → batches → senders → book
//
// The generator is a pure function of its options: the n-th event of a seed is always the same, however fast it is sent, and only its times move with the
// start. A batch is sent until it is acknowledged, always with the same bytes and therefore the same ids, so that a platform that deduplicates by id holds
// every event once. The book counts an event when its batch is acknowledged; its Summary is what a store must hold at the end.
package simulate
