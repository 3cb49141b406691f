package fusewire

import (
	"bytes"
	"sync"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// inPlace is the request that a reader has decoded itself.
type inPlace struct {
	mu     sync.Mutex
	unique uint64        // 0: none; guarded by mu
	cut    bool          // interrupted; guarded by mu
	cancel chan struct{} // closed with cut
	rename fuse.RenameIn // for it, where it is a RENAME
}

// begin is called before a request is carried out, end after it.
func (q *inPlace) begin(unique uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.unique = unique
	if q.cancel == nil || q.cut {
		q.cancel, q.cut = make(chan struct{}), false
	}
}

func (q *inPlace) end() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.unique = 0
}

// interrupt cuts the request off, if it is the one with this number.
func (q *inPlace) interrupt(unique uint64) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.unique != unique {
		return false
	}
	if !q.cut {
		q.cut = true
		close(q.cancel)
	}
	return true
}

// interrupt cuts a request off that a reader has decoded itself.
func (s *Server) interrupt(unique uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for r := range s.readers {
		if r.own.interrupt(unique) {
			return true
		}
	}
	return false
}

// decodable tells whether go-fuse would do nothing with the requests that are decoded
// here but what is done here.
func decodable(o *fuse.MountOptions) bool {
	return o.PanicHandler != nil && !o.Debug && !o.DisableXAttrs && !o.IgnoreSecurityLabels && !o.RememberInodes
}

// headOut is the length of an answer's header.
const headOut = unsafe.Sizeof(fuse.OutHeader{})

// shape is what a kind of request, and its answer, have of fixed length.
type shape struct {
	in, out uintptr
	names   int // that follow, each with a NUL
}

// shapeOf knows the kinds that are decoded here: those that untars, copies, walks and
// removals are made of. (See fuse_in_header and what follows in linux/fuse.h.)
func shapeOf(op uint32) (shape, bool) {
	const entry, attr = unsafe.Sizeof(fuse.EntryOut{}), unsafe.Sizeof(fuse.AttrOut{})
	switch op {
	case opLookup:
		return shape{unsafe.Sizeof(fuse.InHeader{}), entry, 1}, true
	case opForget:
		return shape{unsafe.Sizeof(fuse.ForgetIn{}), 0, 0}, true
	case opGetAttr:
		return shape{unsafe.Sizeof(fuse.GetAttrIn{}), attr, 0}, true
	case opSetAttr:
		return shape{unsafe.Sizeof(fuse.SetAttrIn{}), attr, 0}, true
	case opMknod:
		return shape{unsafe.Sizeof(fuse.MknodIn{}), entry, 1}, true
	case opMkdir:
		return shape{unsafe.Sizeof(fuse.MkdirIn{}), entry, 1}, true
	case opUnlink, opRmdir:
		return shape{unsafe.Sizeof(fuse.InHeader{}), 0, 1}, true
	case opRename: // the new parent alone comes before the names
		return shape{unsafe.Offsetof(fuse.RenameIn{}.Flags), 0, 2}, true
	case opRename2:
		return shape{unsafe.Sizeof(fuse.RenameIn{}), 0, 2}, true
	case opRead:
		return shape{unsafe.Sizeof(fuse.ReadIn{}), 0, 0}, true
	case opWrite:
		return shape{unsafe.Sizeof(fuse.WriteIn{}), unsafe.Sizeof(fuse.WriteOut{}), 0}, true
	case opCopyFileRange:
		return shape{unsafe.Sizeof(fuse.CopyFileRangeIn{}), unsafe.Sizeof(fuse.WriteOut{}), 0}, true
	}
	return shapeOfXattr(op)
}

// shapeOfXattr is shapeOf for extended attributes.
func shapeOfXattr(op uint32) (shape, bool) {
	switch op {
	case opGetXattr:
		return shape{unsafe.Sizeof(fuse.GetXAttrIn{}), 0, 1}, true
	case opListXattr:
		return shape{unsafe.Sizeof(fuse.GetXAttrIn{}), 0, 0}, true
	case opSetXattr:
		return shape{unsafe.Sizeof(fuse.SetXAttrIn{}), 0, 1}, true
	}
	return shape{}, false
}

// offered returns how much data the program has room for, at most.
func offered(r *reader) int {
	switch r.head().Opcode {
	case opRead:
		return int((*fuse.ReadIn)(unsafe.Pointer(&r.in[0])).Size)
	case opGetXattr, opListXattr:
		return int((*fuse.GetXAttrIn)(unsafe.Pointer(&r.in[0])).Size)
	}
	return 0
}

// carryOutInPlace carries out a request of n bytes of one of the kinds that there
// are most of, in the reader's own buffers, and returns the answer's length, 0 for
// none. Of another kind, or not as it should be, it is left to go-fuse: ok is false.
// The filesystem keeps nothing of what it is given but the name.
func (s *Server) carryOutInPlace(r *reader, n int) (k int, ok bool) {
	h := r.head()
	sh, ok := shapeOf(h.Opcode)
	if !ok || !s.ownDecoding || h.TotalExtlen != 0 || n < int(sh.in) || int(headOut)+offered(r) > len(r.out) {
		return 0, false
	}
	if h.Opcode == opSetXattr && !s.longSetXattr {
		return 0, false
	}
	var names [2]string
	rest := r.in[sh.in:n]
	for i := range sh.names {
		end := bytes.IndexByte(rest, 0)
		if end < 0 {
			return 0, false
		}
		names[i], rest = string(rest[:end]), rest[end+1:]
	}
	unique := h.Unique
	clear(r.out[:headOut+sh.out])
	r.own.begin(unique)
	data, st := s.carryOut(r, rest, names[0], names[1])
	r.own.end()
	if silent(h.Opcode) {
		return 0, true
	}
	k = int(headOut)
	if st.Ok() {
		k += int(sh.out) + data
	}
	*(*fuse.OutHeader)(unsafe.Pointer(&r.out[0])) = fuse.OutHeader{Length: uint32(k), Status: -int32(st), Unique: unique}
	return k, true
}

// carryOut has the filesystem carry out the request, of which rest is what comes after
// the fixed length and names, and returns how much data the answer has after what is of
// fixed length.
func (s *Server) carryOut(r *reader, rest []byte, name, second string) (data int, st fuse.Status) {
	defer func() {
		if p := recover(); p != nil {
			if data, st = 0, s.opts.PanicHandler(p); st.Ok() {
				st = fuse.EIO
			}
		}
	}()
	h, cancel := r.head(), r.own.cancel
	in, out := unsafe.Pointer(h), unsafe.Pointer(&r.out[headOut])
	switch h.Opcode {
	case opForget:
		s.fs.Forget(h.NodeId, (*fuse.ForgetIn)(in).Nlookup)
	case opGetAttr:
		st = s.fs.GetAttr(cancel, (*fuse.GetAttrIn)(in), (*fuse.AttrOut)(out))
	case opSetAttr:
		st = s.fs.SetAttr(cancel, (*fuse.SetAttrIn)(in), (*fuse.AttrOut)(out))
	case opWrite:
		(*fuse.WriteOut)(out).Size, st = s.fs.Write(cancel, (*fuse.WriteIn)(in), rest)
	case opRead:
		return readInto(s.fs, r, (*fuse.ReadIn)(in))
	case opGetXattr:
		return xattrInto(r, func(h *fuse.InHeader, dest []byte) (uint32, fuse.Status) { return s.fs.GetXAttr(cancel, h, name, dest) })
	case opListXattr:
		return xattrInto(r, func(h *fuse.InHeader, dest []byte) (uint32, fuse.Status) { return s.fs.ListXAttr(cancel, h, dest) })
	case opSetXattr:
		st = s.fs.SetXAttr(cancel, (*fuse.SetXAttrIn)(in), name, rest)
	case opCopyFileRange:
		(*fuse.WriteOut)(out).Size, st = s.fs.CopyFileRange(cancel, (*fuse.CopyFileRangeIn)(in))
	default:
		st = s.carryOutNamed(r, name, second)
	}
	return 0, st
}

// carryOutNamed carries out a request that is about names.
func (s *Server) carryOutNamed(r *reader, name, second string) fuse.Status {
	h, cancel := r.head(), r.own.cancel
	in, out := unsafe.Pointer(h), (*fuse.EntryOut)(unsafe.Pointer(&r.out[headOut]))
	switch h.Opcode {
	case opLookup:
		return s.fs.Lookup(cancel, h, name, out)
	case opMknod:
		return s.fs.Mknod(cancel, (*fuse.MknodIn)(in), name, out)
	case opMkdir:
		return s.fs.Mkdir(cancel, (*fuse.MkdirIn)(in), name, out)
	case opUnlink:
		return s.fs.Unlink(cancel, h, name)
	case opRmdir:
		return s.fs.Rmdir(cancel, h, name)
	case opRename, opRename2:
		to := &r.own.rename
		*to = fuse.RenameIn{InHeader: *h, Newdir: (*fuse.RenameIn)(in).Newdir}
		if h.Opcode == opRename2 {
			to.Flags = (*fuse.RenameIn)(in).Flags
		}
		return s.fs.Rename(cancel, to, name, second)
	}
	return fuse.ENOSYS
}

// readInto answers READ.
func readInto(fs fuse.RawFileSystem, r *reader, in *fuse.ReadIn) (int, fuse.Status) {
	buf := r.out[headOut : headOut+uintptr(in.Size)]
	res, st := fs.Read(r.own.cancel, in, buf)
	if !st.Ok() || res == nil {
		return 0, st
	}
	defer res.Done()
	data, st := res.Bytes(buf)
	if !st.Ok() {
		return 0, st
	}
	return copy(buf, data), st // of what is there already nothing is copied
}

// xattrInto answers GETXATTR, or LISTXATTR: with what get gives, or its length if no room
// is offered.
func xattrInto(r *reader, get func(h *fuse.InHeader, dest []byte) (uint32, fuse.Status)) (int, fuse.Status) {
	buf := r.out[headOut : int(headOut)+offered(r)]
	k, st := get(r.head(), buf)
	if len(buf) > 0 || !st.Ok() && st != fuse.ERANGE {
		return min(int(k), len(buf)), st
	}
	const size = unsafe.Sizeof(fuse.GetXAttrOut{})
	*(*fuse.GetXAttrOut)(unsafe.Pointer(&r.out[headOut])) = fuse.GetXAttrOut{Size: k}
	return int(size), fuse.OK
}
