package fusewire

import (
	"errors"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// Files may be implemented by a filesystem whose READ is answered with what a
// file has.
type Files interface {
	// File calls use, if it can, with the descriptor of a file that has the node's
	// content at the same place. It is valid until use returns.
	File(node uint64, use func(fd int))
}

const (
	// spliceLeast is what a READ asks for at least to be worth the system calls.
	spliceLeast = 1 << 16
	// pipeRoom is what a pipe holds at most that an ordinary user makes; spliceMost
	// fits into one, in pages of which the first and the last are not whole, with a
	// header before it.
	pipeRoom, spliceMost = 1 << 20, 1<<20 - 2*page
	// pipesKept is for how many requests at once pipes are kept.
	pipesKept = 4
)

// splicer answers large READs with the pages that the file's own filesystem has,
// so that the data is copied once, by the kernel, from there to where it is read
// to.
type splicer struct {
	files Files // nil: the filesystem has none
	sinks Sinks // nil: the filesystem takes no data from pipes
	most  int   // how long a request is at most
	mu    sync.Mutex
	free  []*pipes // guarded by mu
	ended bool     // guarded by mu
	no    bool     // there can be no more pipes; guarded by mu

	refused atomic.Int32 // WRITEs one after the other that splice(2) refused
}

// pipes are two: answers go through out. Of data that is shorter than its header
// says, the other header is written into data, and what is in out moved after it.
type pipes struct {
	data, out pipe
	room      int // what data holds, in bytes of whole pages
}

// pipe has a descriptor to read and one to write, which do not wait.
type pipe [2]int

// newPipe makes one that holds most bytes, or pipeRoom where that is too much for
// an ordinary user, and says how many.
func newPipe(most int) (p pipe, room int, err error) {
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return p, 0, err
	}
	room, err = unix.FcntlInt(uintptr(p[1]), unix.F_SETPIPE_SZ, most)
	if err != nil && most > pipeRoom {
		room, err = unix.FcntlInt(uintptr(p[1]), unix.F_SETPIPE_SZ, pipeRoom)
	}
	if err != nil {
		return p, 0, errors.Join(err, p.close())
	}
	return p, room, nil
}

// newPipes makes two, for requests of up to most bytes.
func newPipes(most int) (*pipes, error) {
	var p pipes
	var err error
	if p.data, p.room, err = newPipe(max(most, pipeRoom)); err != nil {
		return nil, err
	}
	if p.out, _, err = newPipe(pipeRoom); err != nil {
		return nil, errors.Join(err, p.data.close())
	}
	return &p, nil
}

func (p *pipe) close() error { return errors.Join(unix.Close(p[0]), unix.Close(p[1])) }

func (p *pipes) close() {
	_ = errors.Join(p.data.close(), p.out.close()) // what is in them is not wanted
}

// take returns pipes that are empty, nil when there can be none: too many
// descriptors, or more in pipes than an ordinary user may have.
func (s *splicer) take() *pipes {
	s.mu.Lock()
	defer s.mu.Unlock()
	if k := len(s.free); k > 0 {
		p := s.free[k-1]
		s.free = s.free[:k-1]
		return p
	}
	if s.no {
		return nil
	}
	p, err := newPipes(s.most)
	if s.no = err != nil; s.no {
		return nil
	}
	return p
}

// put takes back pipes that are empty again.
func (s *splicer) put(p *pipes) {
	s.mu.Lock()
	keep := !s.ended && len(s.free) < pipesKept
	if keep {
		s.free = append(s.free, p)
	}
	s.mu.Unlock()
	if !keep {
		p.close()
	}
}

// end closes all, also those that are put back later.
func (s *splicer) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.free {
		p.close()
	}
	s.free, s.ended = nil, true
}

// spliced answers a large READ; false: it did nothing, and an error, if it is
// one, is found again by who reads.
func (s *Server) spliced(r *reader) (done bool) {
	if s.splicer.files == nil || r.head().Opcode != opRead {
		return false
	}
	in := (*fuse.ReadIn)(unsafe.Pointer(&r.in[0]))
	if in.Size < spliceLeast || in.Size > spliceMost {
		return false
	}
	p := s.splicer.take()
	if p == nil {
		return false
	}
	clean := true
	s.splicer.files.File(in.NodeId, func(fd int) { done, clean = p.answer(in, fd, r.fd) })
	if clean {
		s.splicer.put(p)
	} else {
		p.close()
	}
	return done
}

// answer gives the kernel, at to, what fd has. clean tells whether the pipes are
// empty. A READ is hardly ever for more than there is, so the header is written
// first, as if there were all of it.
func (p *pipes) answer(in *fuse.ReadIn, fd, to int) (done, clean bool) {
	if !head(p.out[1], in, int(in.Size)) {
		return false, true
	}
	n, err := fill(p.out[1], fd, int64(in.Offset), int(in.Size))
	from := p.out[0]
	if err != nil || n < int(in.Size) {
		if beheaded := p.behead(); err != nil || !beheaded {
			return false, beheaded && n == 0
		}
		if !head(p.data[1], in, n) || !move(from, p.data[1], n) {
			return false, false
		}
		from = p.data[0]
	}
	k, err := splice(from, nil, to, int(headOut)+n)
	// Nobody waits for the answer any more, or there is no mount: it is not taken out.
	gone := errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV)
	return gone || err == nil, err == nil && k == int(headOut)+n
}

// head writes the header of an answer with n bytes into a pipe.
func head(pipe int, in *fuse.ReadIn, n int) bool {
	h := fuse.OutHeader{Unique: in.Unique, Length: uint32(int(headOut) + n)}
	k, err := unix.Write(pipe, unsafe.Slice((*byte)(unsafe.Pointer(&h)), headOut))
	return err == nil && k == int(headOut)
}

// behead takes the header out of the pipe for answers again.
func (p *pipes) behead() bool {
	var h [headOut]byte
	k, err := unix.Read(p.out[0], h[:])
	return err == nil && k == len(h)
}

// move has n bytes go from one pipe to another.
func move(from, to, n int) bool {
	for n > 0 {
		k, err := splice(from, nil, to, n)
		if err != nil || k == 0 {
			return false
		}
		n -= k
	}
	return true
}

// fill puts up to n bytes that are at off in fd into a pipe, less where the file
// ends.
func fill(pipe, fd int, off int64, n int) (int, error) {
	for total := 0; ; {
		k, err := splice(fd, &off, pipe, n-total)
		if total += k; err != nil || k == 0 || total == n {
			return total, err
		}
	}
}

// splice is splice(2) from off in a file, again when a signal came.
func splice(from int, off *int64, to, n int) (int, error) { return spliceAt(from, off, to, nil, n) }

// spliceAt is splice also to a place in a file.
func spliceAt(from int, off *int64, to int, at *int64, n int) (int, error) {
	for {
		k, err := unix.Splice(from, off, to, at, n, 0)
		if !errors.Is(err, unix.EINTR) {
			return int(max(k, 0)), err
		}
	}
}
