// Package workers puts the platform's processes together: the roles of the one binary as a table, and the root Config. It is the only place that reads
// addresses and credentials and that creates topics and tables; the packages it wires get clients, or options where a session must be made anew.
package workers
