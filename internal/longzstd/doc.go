// Package longzstd decodes zstd frames (RFC 8878) whose window is too large for
// memory: the last bytes stay in memory and the rest of the window is in an
// unlinked temporary file ([spill.Window]). It takes some 9 MiB whatever the
// window, and is slower than the decoders that hold all of it, by which other
// frames are decoded.
//
//	Peek    what a frame at the head of a buffered reader asks for
//	Reader  one frame after the other: header, blocks, checksum
//	block   literals (Huffman codes by package huff0) and sequences, executed
//	        while they are decoded (block.go, literals.go, sequences.go)
//	table   finite state entropy codes (fse.go), read from both ends (bits.go)
//
// Nothing of a frame's end is read before it is needed, and nothing beyond it.
// Dictionaries are refused: they are never in a stream. There are no locks and
// no goroutines: a Reader is used by one.
package longzstd
