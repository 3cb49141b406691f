// Package manual adds the command that writes a program's manual pages from its
// commands, in a build with the tag docs; it ships with no binary:
//
//	go run -tags docs ./cmd/plyfs docs docs/man
package manual
