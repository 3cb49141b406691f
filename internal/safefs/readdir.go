//go:build linux && !portable

package safefs

import (
	"bytes"
	"encoding/binary"
	"errors"
	"syscall"

	"golang.org/x/sys/unix"
)

// direntBuf is the size of one getdents64 call; the first one's, NamesBuf, is smaller, as
// most directories are.
const direntBuf = 32 << 10

// direntName is the offset of d_name: ino 8, off 8, reclen 2, type 1.
const direntName = 19

// ReadDir calls yield for every entry of d but "." and "..", in the
// filesystem's order, and ends with yield's error if it gives one. Each call
// reads from the start through a descriptor of its own (the first one of a
// directory that was opened to be read: through that one), a buffer at a time,
// so that a directory of any size takes constant memory.
func (d *Dir) ReadDir(yield func(Entry) error) (err error) {
	return d.read(make([]byte, NamesBuf), func(name []byte, ino uint64, typ uint32) error {
		return yield(Entry{Name: string(name), Ino: ino, Type: typ})
	})
}

// ReadNames is ReadDir of names and types (see Entry) without an allocation for each: the
// name is yield's until it returns. buf, of NamesBuf or more, is room for what the kernel says.
func (d *Dir) ReadNames(buf []byte, yield func(name []byte, typ uint32) error) error {
	return d.read(buf, func(name []byte, _ uint64, typ uint32) error { return yield(name, typ) })
}

func (d *Dir) read(buf []byte, yield func(name []byte, ino uint64, typ uint32) error) error {
	if d.readable && d.listed.CompareAndSwap(false, true) {
		return readDir(d.fd, buf, yield)
	}
	fd, err := openRetry(d.fd, ".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return fail("readdir", ".", err)
	}
	return errors.Join(readDir(fd, buf, yield), fail("close", ".", unix.Close(fd)))
}

func readDir(fd int, buf []byte, yield func(name []byte, ino uint64, typ uint32) error) error {
	for {
		n, err := unix.Getdents(fd, buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fail("readdir", ".", err)
		}
		if n == 0 {
			return nil
		}
		if err := parseDirents(buf[:n], yield); err != nil {
			return err
		}
		if len(buf) < direntBuf && n > len(buf)/2 {
			buf = make([]byte, direntBuf)
		}
	}
}

// parseDirents walks one buffer of struct linux_dirent64. What does not fit
// its own lengths is EIO: a FUSE filesystem below may be anyone's.
func parseDirents(b []byte, yield func(name []byte, ino uint64, typ uint32) error) error {
	for len(b) > 0 {
		if len(b) < direntName+1 {
			return fail("readdir", ".", syscall.EIO)
		}
		reclen := int(binary.NativeEndian.Uint16(b[16:]))
		if reclen < direntName+1 || reclen > len(b) {
			return fail("readdir", ".", syscall.EIO)
		}
		name := b[direntName:reclen]
		if i := bytes.IndexByte(name, 0); i >= 0 {
			name = name[:i]
		}
		ino, typ := binary.NativeEndian.Uint64(b), uint32(b[18])<<12
		b = b[reclen:]
		switch {
		case len(name) == 1 && name[0] == '.', len(name) == 2 && name[0] == '.' && name[1] == '.':
			continue
		case len(name) == 0 || bytes.IndexByte(name, '/') >= 0: // no name: see ValidName
			return fail("readdir", ".", syscall.EIO)
		}
		if err := yield(name, ino, typ); err != nil {
			return err
		}
	}
	return nil
}
