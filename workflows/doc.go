// Package workflows is the deterministic orchestration of the batch path: what is done in which order, how often it is tried again, how it is paused, and when. It knows
// numbers and names only; what touches the world is in package activities, what things are called in workflows/name.
//
// Time, random numbers and the world come from Temporal alone: each history recorded in testdata/ must replay on the code of today.
package workflows
