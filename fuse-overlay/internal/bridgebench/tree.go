package bridgebench

import (
	"fmt"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// tree is the shape that both servers show: dirs directories of files files.
// Nothing of it is stored, so what a walk leaves in memory is the bridge's.
type tree struct{ dirs, files uint32 }

// index numbers the nodes: 0 the root, 1… the directories, then the files.
type index uint32

const content = "hello, bridge\n"

func (t tree) isDir(n index) bool { return uint32(n) <= t.dirs }

// ino is a bijection of the index that looks like a hash, as real inode
// numbers do; the root is 1.
func (n index) ino() uint64 {
	if n == 0 {
		return fuse.FUSE_ROOT_ID
	}
	z := uint64(n) * 0x9e3779b97f4a7c15
	return (z ^ z>>31) | 1<<62
}

// child finds a name: d0000… in the root, f0000… in a directory.
func (t tree) child(parent index, name string) (index, bool) {
	var k uint32
	if len(name) != 7 {
		return 0, false
	}
	for _, c := range []byte(name[1:]) {
		if c < '0' || c > '9' {
			return 0, false
		}
		k = k*10 + uint32(c-'0')
	}
	switch {
	case parent == 0 && name[0] == 'd' && k < t.dirs:
		return index(1 + k), true
	case parent != 0 && t.isDir(parent) && name[0] == 'f' && k < t.files:
		return index(1 + t.dirs + (uint32(parent)-1)*t.files + k), true
	}
	return 0, false
}

// entry is the k-th entry of a directory.
func (t tree) entry(parent index, k uint32) (index, string, bool) {
	if parent == 0 {
		return index(1 + k), fmt.Sprintf("d%06d", k), k < t.dirs
	}
	return index(1 + t.dirs + (uint32(parent)-1)*t.files + k), fmt.Sprintf("f%06d", k), k < t.files
}

func (t tree) mode(n index) uint32 {
	if t.isDir(n) {
		return syscall.S_IFDIR | 0o755
	}
	return syscall.S_IFREG | 0o644
}

func (t tree) attr(n index, out *fuse.Attr) {
	*out = fuse.Attr{Ino: n.ino(), Mode: t.mode(n), Nlink: 1}
	if !t.isDir(n) {
		out.Size = uint64(len(content))
	}
}

// valid is how long the kernel may believe an entry and its attributes.
type valid struct{ entry, attr time.Duration }
