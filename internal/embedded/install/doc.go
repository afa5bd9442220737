// Package install fetches and builds what the children of one machine need, once,
// into a cache folder: pinned, checked, whole or not at all, and safe against two
// installations at the same time. It stands before the data flow and is not part of it.
package install
