// Package erasure is tests that the whole platform is in the inventory of personal data, and every path that writes in the table of paths by which a person could come back.
package erasure
