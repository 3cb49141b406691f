package xz

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"hash/crc32"
)

// indexSum is the records of a stream's blocks, in constant memory: how many, and
// a digest of them (4.3).
type indexSum struct {
	count  int64
	digest hash.Hash
}

func (s *indexSum) reset() {
	s.count = 0
	if s.digest == nil {
		s.digest = sha256.New()
	}
	s.digest.Reset()
}

// add adds a block's record.
func (s *indexSum) add(unpadded, plain int64) {
	var b [16]byte
	binary.LittleEndian.PutUint64(b[:], uint64(unpadded))
	binary.LittleEndian.PutUint64(b[8:], uint64(plain))
	_, _ = s.digest.Write(b[:]) // never fails
	s.count++
}

func (s *indexSum) sum() (out [sha256.Size]byte) {
	s.digest.Sum(out[:0])
	return out
}

// readIndex reads the index (4), whose first byte at start has been taken, and
// compares it with the blocks.
func (r *Reader) readIndex(start int64) error {
	sum := crc32.ChecksumIEEE([]byte{0})
	count, err := r.indexNumber(&sum)
	if err != nil {
		return err
	}
	if count != r.index.count {
		return damaged("a stream has %d blocks, and its index says %d", r.index.count, count)
	}
	var said indexSum
	said.reset()
	for range count {
		unpadded, err := r.indexNumber(&sum)
		if err != nil {
			return err
		}
		plain, err := r.indexNumber(&sum)
		if err != nil {
			return err
		}
		said.add(unpadded, plain)
	}
	if said.sum() != r.index.sum() {
		return damaged("a stream's index tells other sizes than its blocks have")
	}
	pad := int((start - r.at) & 3)
	if err := r.zeros(pad, "the index's padding"); err != nil {
		return err
	}
	var zeros [3]byte
	sum = crc32.Update(sum, crc32.IEEETable, zeros[:pad])
	var b [4]byte
	if err := r.take(b[:]); err != nil {
		return err
	}
	if binary.LittleEndian.Uint32(b[:]) != sum {
		return damaged("the checksum of a stream's index is another")
	}
	return nil
}

// indexNumber reads a number of the index, and adds its bytes to sum.
func (r *Reader) indexNumber(sum *uint32) (int64, error) {
	var n number
	for {
		c, err := r.in.ReadByte()
		if err != nil {
			return 0, err
		}
		r.at++
		*sum = crc32.Update(*sum, crc32.IEEETable, []byte{c})
		more, ok := n.add(c)
		switch {
		case !ok:
			return 0, damaged("a stream's index has a number that is none")
		case !more:
			return n.value, nil
		}
	}
}
