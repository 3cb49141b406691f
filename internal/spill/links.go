package spill

import (
	"encoding/binary"
	"errors"
	"hash/maphash"
)

// linkMemory is how many files of a Links are in memory.
const linkMemory = 1 << 16

// Links remembers the first name of every file that has several, of any number
// of files: two bytes of memory for each from the 65,537th on. Size and names
// of the first are at hand, those on disk a read away.
type Links struct {
	seed maphash.Seed
	mem  map[uint64]uint64 // hash of a file to its record in names
	r    runs
	// names has record after record: device, inode, length of the name, all in
	// eight bytes, and the name.
	names Spool
	buf   []byte
}

const linkFixed = 3 * 8

// NewLinks returns an empty table.
func NewLinks() *Links { return newLinks(linkMemory) }

func newLinks(memory int) *Links {
	return &Links{seed: maphash.MakeSeed(), mem: map[uint64]uint64{}, r: runs{size: memory}}
}

// inode is a file.
type inode struct{ dev, ino uint64 }

// First returns the name that the file was first given with, and true; or
// notes name as the first one.
func (l *Links) First(dev, ino uint64, name string) (first string, again bool, err error) {
	first, again, h, err := l.find(dev, ino)
	if again || err != nil {
		return first, again, err
	}
	return "", false, l.note(h, dev, ino, name)
}

// Find is First for a name that is not to be noted yet, or never.
func (l *Links) Find(dev, ino uint64) (first string, again bool, err error) {
	first, again, _, err = l.find(dev, ino)
	return first, again, err
}

// find returns the file's first name, or the hash under which there is none.
func (l *Links) find(dev, ino uint64) (first string, again bool, h uint64, err error) {
	for h = maphash.Comparable(l.seed, inode{dev, ino}); ; h++ {
		at, ok := l.mem[h]
		if !ok {
			if at, ok, err = l.r.find(h); err != nil {
				return "", false, h, err
			}
		}
		if !ok {
			return "", false, h, nil
		}
		first, same, err := l.record(at, dev, ino)
		if same || err != nil {
			return first, same, h, err
		}
	}
}

func (l *Links) note(h, dev, ino uint64, name string) error {
	at := l.names.Size()
	b := l.buf[:0]
	for _, n := range [...]uint64{dev, ino, uint64(len(name))} {
		b = binary.BigEndian.AppendUint64(b, n)
	}
	l.buf = append(b, name...)
	if err := l.names.Append(l.buf); err != nil {
		return err
	}
	l.mem[h] = uint64(at)
	if len(l.mem) < l.r.size {
		return nil
	}
	run := make([]entry, 0, len(l.mem))
	for h, at := range l.mem {
		run = append(run, entry{h, at})
	}
	clear(l.mem)
	return l.r.add(run)
}

// record reads a record; same tells whether it is this file's.
func (l *Links) record(at, dev, ino uint64) (name string, same bool, err error) {
	var b [linkFixed]byte
	if err := l.read(b[:], int64(at)); err != nil {
		return "", false, err
	}
	if binary.BigEndian.Uint64(b[:]) != dev || binary.BigEndian.Uint64(b[8:]) != ino {
		return "", false, nil
	}
	text := make([]byte, binary.BigEndian.Uint64(b[16:]))
	err = l.read(text, int64(at)+linkFixed)
	return string(text), err == nil, err
}

func (l *Links) read(b []byte, off int64) error {
	n, err := l.names.ReadAt(b, off)
	if n == len(b) {
		return nil // that it is the end, too, says nothing
	}
	return err
}

// Close gives the files back, if there are any.
func (l *Links) Close() error { return errors.Join(l.r.close(), l.names.Close()) }
