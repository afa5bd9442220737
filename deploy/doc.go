// Package deploy is the home of the container image, the compose file, and what watches over a running platform. Its only Go code is tests: that what they configure
// is what the platform reads.
package deploy
