package config

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
)

// A reader of bbolt files, as far as one flat bucket needs it. The format
// (all numbers little-endian on the machines that podman runs on):
//
//	page     id u64 · flags u16 (1 branch, 2 leaf, 4 meta) · count u16 ·
//	         overflow u32 · then by kind:
//	meta     magic u32 · version u32 · pageSize u32 · flags u32 ·
//	         root page u64 · sequence u64 · freelist u64 · pages u64 ·
//	         txid u64 · checksum u64 (FNV-1a of what precedes); pages 0 and 1
//	branch   count × { pos u32 · ksize u32 · page u64 }
//	leaf     count × { flags u32 (1 bucket) · pos u32 · ksize u32 · vsize u32 }
//	bucket   root page u64 (0: the page follows inline) · sequence u64
//
// pos counts from the element itself. Sizes and depths are checked: the file
// may be damaged, or hostile.
const (
	boltMagic    = 0xED0CDAED
	boltVersion  = 2
	boltHeader   = 16
	boltMetaSize = 64
	boltMaxDepth = 8
	boltMaxPage  = 1 << 20 // bytes, a page with its overflow
	boltMaxPairs = 4096
)

var errBolt = errors.New("the file is no bbolt database, or is damaged")

type boltFile struct {
	r        io.ReaderAt
	pageSize int64
	seen     int
}

// boltBucket returns the pairs of a top-level bucket; none when it is missing.
func boltBucket(r io.ReaderAt, name string) (map[string]string, error) {
	b := &boltFile{r: r}
	root, err := b.meta()
	if err != nil {
		return nil, err
	}
	var bucket []byte
	page, err := b.page(root)
	if err != nil {
		return nil, err
	}
	err = b.walk(page, 0, func(isBucket bool, key, value []byte) {
		if isBucket && string(key) == name {
			bucket = value
		}
	})
	if err != nil || bucket == nil {
		return nil, err
	}
	if len(bucket) < boltHeader {
		return nil, errBolt
	}
	page = bucket[boltHeader:]
	if id := binary.LittleEndian.Uint64(bucket); id != 0 {
		if page, err = b.page(id); err != nil {
			return nil, err
		}
	}
	pairs := map[string]string{}
	err = b.walk(page, 0, func(isBucket bool, key, value []byte) {
		if !isBucket {
			pairs[string(key)] = string(value)
		}
	})
	return pairs, err
}

// meta finds the newest valid meta page and returns its root page.
func (b *boltFile) meta() (root uint64, err error) {
	newest, found := uint64(0), false
	// The second one is a page further on, of a size that only the first tells.
	for _, at := range []int64{0, 4096, 8192, 16384, 65536} {
		m := make([]byte, boltMetaSize)
		if n, err := b.r.ReadAt(m, at+boltHeader); n < len(m) {
			if err == io.EOF {
				continue
			}
			return 0, fmt.Errorf("read: %w", err)
		}
		size, txid, ok := checkMeta(m)
		if !ok || at != 0 && at != size {
			continue
		}
		if !found || txid >= newest {
			newest, found = txid, true
			b.pageSize, root = size, binary.LittleEndian.Uint64(m[16:])
		}
	}
	if !found {
		return 0, errBolt
	}
	return root, nil
}

func checkMeta(m []byte) (pageSize int64, txid uint64, ok bool) {
	sum := fnv.New64a()
	if _, err := sum.Write(m[:56]); err != nil {
		return 0, 0, false
	}
	pageSize = int64(binary.LittleEndian.Uint32(m[8:]))
	ok = binary.LittleEndian.Uint32(m) == boltMagic && binary.LittleEndian.Uint32(m[4:]) == boltVersion &&
		binary.LittleEndian.Uint64(m[56:]) == sum.Sum64() && pageSize >= 512 && pageSize <= 65536
	return pageSize, binary.LittleEndian.Uint64(m[48:]), ok
}

// page reads a page with its overflow.
func (b *boltFile) page(id uint64) ([]byte, error) {
	if id > 1<<40 {
		return nil, errBolt
	}
	head := make([]byte, boltHeader)
	if _, err := b.r.ReadAt(head, int64(id)*b.pageSize); err != nil {
		return nil, fmt.Errorf("read page %d: %w", id, err)
	}
	size := (int64(binary.LittleEndian.Uint32(head[12:])) + 1) * b.pageSize
	if size > boltMaxPage {
		return nil, errBolt
	}
	page := make([]byte, size)
	if n, err := b.r.ReadAt(page, int64(id)*b.pageSize); n < len(page) && err != nil {
		return nil, fmt.Errorf("read page %d: %w", id, err)
	}
	return page, nil
}

// walk yields every element of the tree below page.
func (b *boltFile) walk(page []byte, depth int, yield func(isBucket bool, key, value []byte)) error {
	if len(page) < boltHeader || depth > boltMaxDepth {
		return errBolt
	}
	count := int(binary.LittleEndian.Uint16(page[10:]))
	branch := binary.LittleEndian.Uint16(page[8:])&1 != 0
	for i := range count {
		if b.seen++; b.seen > boltMaxPairs {
			return errBolt
		}
		e, ok := cut(page, int64(boltHeader+i*16), 16)
		if !ok {
			return errBolt
		}
		if branch {
			child, err := b.page(binary.LittleEndian.Uint64(e[8:]))
			if err != nil {
				return err
			}
			if err := b.walk(child, depth+1, yield); err != nil {
				return err
			}
			continue
		}
		at := int64(boltHeader+i*16) + int64(binary.LittleEndian.Uint32(e[4:]))
		ksize, vsize := int64(binary.LittleEndian.Uint32(e[8:])), int64(binary.LittleEndian.Uint32(e[12:]))
		key, ok1 := cut(page, at, ksize)
		value, ok2 := cut(page, at+ksize, vsize)
		if !ok1 || !ok2 {
			return errBolt
		}
		yield(binary.LittleEndian.Uint32(e)&1 != 0, key, value)
	}
	return nil
}

func cut(b []byte, at, n int64) ([]byte, bool) {
	if at < 0 || n < 0 || at+n > int64(len(b)) {
		return nil, false
	}
	return b[at : at+n], true
}
