// Package model scores features with models that were trained elsewhere: gradient-boosted trees in this process, or a model server over HTTP.
//
// It stands behind the features of the stream: a fraud job fills a slice of float64 and asks for a score. LightGBM's text files and XGBoost's JSON files are read
// into flat arrays and scored without allocation by pure Go; LightGBM's raw scores are equal to its own bit by bit, XGBoost's within the last bits of a float32.
// A Slot holds the model in force, by the digest of its file, and keeps it when a newer file cannot be used. Server asks TensorFlow Serving or KServe, with a
// deadline, a breaker, bounded concurrency, and a fallback score that names its reason.
package model
