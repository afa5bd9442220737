// Package order puts rows of Arrow into an order: by columns, by days and hours of times, or along a Morton curve. Keys are bytes that compare as the values do; what does
// not fit into memory is sorted in runs on disk. It knows neither tables nor files of a lakehouse, whose rewrites use it.
package order
