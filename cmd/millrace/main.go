// Command millrace is the whole platform in one binary: `millrace up` runs it on one machine, `millrace run ROLE` runs one role of it anywhere.
package main

import (
	"os"

	"millrace/internal/cli"
)

func main() {
	os.Exit(cli.Main(os.Args[1:], os.Stdout, os.Stderr))
}
