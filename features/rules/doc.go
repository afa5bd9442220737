// Package rules is the language in which fraud is looked for: a versioned set of rules in YAML, compiled to what counts the events of one key (a visitor, user, card,
// address or device) and says at which of them a rule is met.
//
// It is pure: no clock, no store, no transport. The hot topology keeps a State for each key and gives it the key's events, once as they come and once in the order of event
// time; `millrace rules replay` does the same with events of the past.
package rules
