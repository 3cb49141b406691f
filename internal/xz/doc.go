// Package xz decodes .xz files (The .xz File Format, version 1.2.1) whose blocks
// are packed by LZMA2 alone, as xz makes them unless it is told otherwise. What is
// written of LZMA is from the LZMA specification (draft of 2015); LZMA2, which
// neither text describes, is a sequence of chunks, each with a byte that says
// what it is (lzma2.go).
//
//	Reader   streams: header, blocks, index, footer (reader.go, header.go, index.go)
//	checks   of a block's content: none, CRC32, CRC64, SHA-256 (check.go)
//	chunks   LZMA2 (lzma2.go)
//	symbols  LZMA: literals and matches (lzma.go), by a range decoder (range.go)
//
// A dictionary may have 4 GiB. Up to 4 MiB, what xz makes at its levels up to 4, are
// in memory whole, with 2 MiB beside; of a larger one the last 4 to 6 MiB, and 2
// MiB of what is looked back at, and the rest is in an unlinked temporary file
// ([spill.Window]) that is as large as the dictionary at the most. So a Reader takes
// 9 MiB whatever it reads. Nothing grows with the number of blocks: of the sizes
// that the index repeats a digest is kept.
//
// Everything that a file says of itself is compared with what it is: checksums of
// headers, index and footer, sizes of blocks, padding. Of an LZMA2 chunk, the
// sizes; that the bytes are used up and the range decoder stands at zero; that no
// match goes over the chunk's end, or looks back beyond the dictionary or what has
// been written since it was emptied. What is refused, though xz knows it, are other
// filters (x86, ARM, …, delta).
//
// Nothing is read before it is needed, and nothing beyond a stream's end: a chunk's
// 64 KiB at the most are read ahead of what they say. There are no locks and no
// goroutines: a Reader is used by one.
package xz
