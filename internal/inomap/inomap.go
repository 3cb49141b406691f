// Package inomap makes inode numbers: the same at every mount, and different
// for different files, whatever their names and numbers are.
//
// A number is 64 bits of a SHA-256:
//
//	sha256( sha256(key)[:16] || a || b || c )[:8]     a, b, c as 8 bytes, little-endian
//
// The input has a fixed length (40 bytes, one block of the hash), so no two
// different inputs are the same bytes. The hash is strong since its inputs
// are other people's: names and inode numbers of a filesystem that somebody
// fills cannot be chosen so that two files get one number, short of finding
// 2^32 of them by chance. The values 0, 1 and ^0 mean something else to
// kernels and servers and are never returned.
package inomap

import (
	"crypto/sha256"
	"encoding/binary"
)

// Space is a set of inode numbers, made from a key; numbers of two spaces with
// different keys do not meet. It is a value and may be copied.
type Space struct{ prefix [16]byte }

// New returns the space of key.
func New(key string) Space {
	sum := sha256.Sum256([]byte(key))
	return Space{[16]byte(sum[:16])}
}

// Number returns the number of the triple (a, b, c).
func (s Space) Number(a, b, c uint64) uint64 {
	var in [40]byte
	copy(in[:], s.prefix[:])
	binary.LittleEndian.PutUint64(in[16:], a)
	binary.LittleEndian.PutUint64(in[24:], b)
	binary.LittleEndian.PutUint64(in[32:], c)
	sum := sha256.Sum256(in[:])
	n := binary.LittleEndian.Uint64(sum[:])
	if n <= 1 || n == ^uint64(0) {
		n = binary.LittleEndian.Uint64(sum[8:])&^(1<<63) | 2 // as good, once in 2^62
	}
	return n
}
