// Package archtest holds the project's import table: which folder may import which. It is only tests.
package archtest
