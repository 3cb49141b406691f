package xz

import (
	"bytes"
	"crypto/sha256"
	"hash"
	"hash/crc32"
	"hash/crc64"
)

// check is a block's check (3.4), whose kind the stream's header says.
type check struct {
	kind byte
	hash hash.Hash // nil for none
}

const (
	checkNone   = 0
	checkCRC32  = 1
	checkCRC64  = 4
	checkSHA256 = 10
)

// use begins a stream whose blocks have checks of a kind.
func (c *check) use(kind byte) error {
	if c.kind == kind {
		return nil
	}
	switch kind {
	case checkNone:
		c.hash = nil
	case checkCRC32:
		c.hash = crc32.NewIEEE()
	case checkCRC64:
		c.hash = crc64.New(crc64.MakeTable(crc64.ECMA))
	case checkSHA256:
		c.hash = sha256.New()
	default:
		return unsupported("checks of the kind %d have no meaning yet", kind)
	}
	c.kind = kind
	return nil
}

func (c *check) name() string {
	switch c.kind {
	case checkCRC32:
		return "CRC32"
	case checkCRC64:
		return "CRC64"
	case checkSHA256:
		return "SHA-256"
	}
	return "none"
}

func (c *check) reset() {
	if c.hash != nil {
		c.hash.Reset()
	}
}

func (c *check) add(b []byte) {
	if c.hash != nil {
		_, _ = c.hash.Write(b) // never fails
	}
}

// size is how many bytes the check takes.
func (c *check) size() int {
	if c.hash == nil {
		return 0
	}
	return c.hash.Size()
}

// is tells whether b is the check of what was added.
func (c *check) is(b []byte) bool {
	if c.hash == nil {
		return true
	}
	var buf [sha256.Size]byte
	sum := c.hash.Sum(buf[:0])
	if c.kind != checkSHA256 { // in the order of bytes that the format has
		for i, j := 0, len(sum)-1; i < j; i, j = i+1, j-1 {
			sum[i], sum[j] = sum[j], sum[i]
		}
	}
	return bytes.Equal(sum, b)
}
