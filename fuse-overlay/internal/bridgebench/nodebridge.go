package bridgebench

import (
	"context"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs" //nolint:depguard // what is measured against
	"github.com/hanwen/go-fuse/v2/fuse"
)

// shared is what all nodes of one bridged tree have in common.
type shared struct {
	tree  tree
	valid valid
}

// bridged is a node of go-fuse's package fs.
type bridged struct {
	fs.Inode
	s *shared
	n index
}

var (
	_ fs.NodeLookuper  = (*bridged)(nil)
	_ fs.NodeReaddirer = (*bridged)(nil)
	_ fs.NodeGetattrer = (*bridged)(nil)
	_ fs.NodeOpener    = (*bridged)(nil)
	_ fs.NodeReader    = (*bridged)(nil)
)

// Lookup implements fs.NodeLookuper.
func (b *bridged) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	n, ok := b.s.tree.child(b.n, name)
	if !ok {
		return nil, syscall.ENOENT
	}
	b.s.tree.attr(n, &out.Attr)
	out.SetEntryTimeout(b.s.valid.entry)
	out.SetAttrTimeout(b.s.valid.attr)
	return b.NewInode(ctx, &bridged{s: b.s, n: n}, fs.StableAttr{Mode: b.s.tree.mode(n), Ino: n.ino()}), 0
}

// Readdir implements fs.NodeReaddirer.
func (b *bridged) Readdir(context.Context) (fs.DirStream, syscall.Errno) {
	var list []fuse.DirEntry
	for k := uint32(0); ; k++ {
		n, name, ok := b.s.tree.entry(b.n, k)
		if !ok {
			return fs.NewListDirStream(list), 0
		}
		list = append(list, fuse.DirEntry{Name: name, Ino: n.ino(), Mode: b.s.tree.mode(n)})
	}
}

// Getattr implements fs.NodeGetattrer.
func (b *bridged) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	b.s.tree.attr(b.n, &out.Attr)
	out.SetTimeout(b.s.valid.attr)
	return 0
}

// Open implements fs.NodeOpener.
func (b *bridged) Open(context.Context, uint32) (fs.FileHandle, uint32, syscall.Errno) {
	return nil, fuse.FOPEN_DIRECT_IO, 0
}

// Read implements fs.NodeReader.
func (b *bridged) Read(_ context.Context, _ fs.FileHandle, dest []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	return fuse.ReadResultData(readAt(dest, off)), 0
}

func readAt(dest []byte, off int64) []byte {
	if off >= int64(len(content)) {
		return nil
	}
	return dest[:copy(dest, content[off:])]
}

func mountBridge(dir string, t tree, v valid) (*fuse.Server, error) {
	return fs.Mount(dir, &bridged{s: &shared{t, v}}, &fs.Options{
		MountOptions:    fuse.MountOptions{FsName: "bridgebench", DirectMount: true},
		NullPermissions: true,
	})
}
