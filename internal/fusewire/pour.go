package fusewire

import (
	"errors"
	"syscall"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// Sinks may be implemented by a filesystem that can write the data of a WRITE from
// a pipe.
type Sinks interface {
	// WriteFrom carries out a WRITE of in.Size bytes, as Write does, whose data move
	// puts into a file that it is given, at off, as pwrite(2) would: up to most bytes of
	// what is left, maybe less. Where done is false nothing was done, nor moved, and
	// Write is called instead.
	WriteFrom(in *fuse.WriteIn, move func(fd int, off int64, most int) (int, error)) (n uint32, st fuse.Status, done bool)
}

// refusedAlways is how many WRITEs one after the other splice(2) must have refused
// (EINVAL) until no more are tried: the filesystem of the files cannot do it.
const refusedAlways = 4

// writeHead is what comes before a WRITE's data.
const writeHead = int(unsafe.Sizeof(fuse.WriteIn{}))

// prepare gives r pipes for its next request when the last one, of n bytes, was a
// large WRITE, whose like come in rows, and takes them away when it was not. Data
// of O_DIRECT is copied into the pipe by the kernel: that is not worth it.
func (s *Server) prepare(r *reader, n int) {
	in := (*fuse.WriteIn)(unsafe.Pointer(&r.in[0]))
	want := r.piped > 0 || s.splicer.pours() && in.Opcode == opWrite && n > writeHead+spliceLeast && in.Flags&syscall.O_DIRECT == 0
	if !want {
		s.unpipe(r)
	} else if r.pipes == nil {
		if r.pipes = s.splicer.take(); r.pipes != nil && r.pipes.room < s.splicer.most {
			s.unpipe(r)
		}
	}
}

// pours tells whether data of WRITEs is to go through pipes.
func (s *splicer) pours() bool { return s.sinks != nil && s.refused.Load() < refusedAlways }

// tried counts what was refused.
func (s *splicer) tried(moved int, err error) {
	switch {
	case moved == 0 && errors.Is(err, unix.EINVAL):
		s.refused.Add(1)
	case moved > 0 && s.refused.Load() > 0:
		s.refused.Store(0)
	}
}

// unpipe takes r's pipes away, which are empty.
func (s *Server) unpipe(r *reader) {
	if r.pipes != nil {
		s.splicer.put(r.pipes)
		r.pipes = nil
	}
}

// spill closes r's pipes with what is in them.
func (r *reader) spill() {
	r.pipes.close()
	r.pipes, r.piped = nil, 0
}

// readPiped is readRequest through r's pipes: the data of a large WRITE stays in
// them, anything else is taken out. The pipe has room for any request: the kernel
// would lose one that did not fit.
func (s *Server) readPiped(r *reader) (int, syscall.Errno) {
	k, err := unix.Splice(r.fd, nil, r.pipes.data[1], nil, len(r.in), 0)
	n := int(k)
	var no syscall.Errno
	switch {
	case errors.As(err, &no) && (no == syscall.EINVAL || no == syscall.ENOMEM):
		s.unpipe(r) // nothing was read: the next try is a read
		return 0, syscall.EINTR
	case err != nil:
		return 0, no
	case n < int(unsafe.Sizeof(fuse.InHeader{})):
		r.spill()
		return 0, syscall.EPROTO
	}
	r.piped = n
	if !r.take(min(n, writeHead)) {
		r.spill()
		return 0, syscall.EPROTO
	}
	in := (*fuse.WriteIn)(unsafe.Pointer(&r.in[0]))
	if in.Opcode == opWrite && r.piped >= spliceLeast && r.piped == int(in.Size) {
		return n, 0
	}
	if !r.take(n) {
		r.spill()
		return 0, syscall.EPROTO
	}
	return n, 0
}

// take has the request in r's buffer up to n bytes, the rest of what is in the pipe
// stays there; have tells how many there are already.
func (r *reader) take(n int) bool {
	for have := r.have; have < n; have = r.have {
		k, err := unix.Read(r.pipes.data[0], r.in[have:n])
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || k <= 0 {
			return false
		}
		r.have += k
		r.piped -= k
	}
	return true
}

// pour carries out a WRITE whose data is in the pipe, and returns the answer's
// length; 0 when it is in r's buffer now, to be carried out like all others.
func (s *Server) pour(r *reader) int {
	in := (*fuse.WriteIn)(unsafe.Pointer(&r.in[0]))
	var n uint32
	var st fuse.Status
	done, moved := false, false
	if s.splicer.pours() { // else others were refused since r was given its pipes
		n, st, done = s.splicer.sinks.WriteFrom(in, func(fd int, off int64, most int) (int, error) {
			k, err := spliceAt(r.pipes.data[0], nil, fd, &off, min(most, r.piped))
			r.piped -= k
			moved = moved || k > 0
			s.splicer.tried(k, err)
			return k, err
		})
	}
	if !done && !moved && r.take(r.have+r.piped) {
		return 0
	}
	if !done {
		n, st = 0, fuse.EIO
	}
	if r.piped > 0 {
		r.spill() // it could not be written
	}
	var out struct {
		fuse.OutHeader
		fuse.WriteOut
	}
	k := int(unsafe.Sizeof(out))
	if out.Size = n; !st.Ok() {
		k = int(unsafe.Sizeof(out.OutHeader))
	}
	out.OutHeader = fuse.OutHeader{Length: uint32(k), Status: -int32(st), Unique: in.Unique}
	return copy(r.out, unsafe.Slice((*byte)(unsafe.Pointer(&out)), k))
}
