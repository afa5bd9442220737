// Package terraform is the home of the infrastructure as code: modules, an example of each, and their check. Its only Go code writes BigQuery's table schemas, so that
// the warehouse has the columns that the lake has, by the same table of fields (event/schema).
package terraform

//go:generate go test . -run TestBigQuerySchemasAreCurrent -update
