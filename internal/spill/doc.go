// Package spill keeps what grows with a layer's size: a little in memory, the
// rest in unlinked temporary files ($TMPDIR), which a kill leaves nothing of.
// There are no locks: each value is used by one goroutine.
//
// [Spool] is a run of bytes, [Window] the end of one, [Set] a set of hashes,
// [Links] the names of hard-linked files.
package spill
