package fusewire

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// Server is a mounted filesystem. Its methods may be called by any goroutine.
type Server struct {
	opts   fuse.MountOptions
	fs     fuse.RawFileSystem
	proto  *fuse.ProtocolServer
	dir    string // where New mounted
	hidden hidden // the mount that Show puts there
	kernel fuse.InitIn
	// readsOnly: the talker answers no request that changes something.
	readsOnly bool
	// ownDecoding: what there is most of is decoded here (inplace.go).
	ownDecoding bool
	// longSetXattr: SETXATTR has the form that go-fuse calls an extension.
	longSetXattr bool
	// answered counts requests. One may rely on another that the kernel had the answer
	// of when it asked (FORGET on all before), and readers share nothing else by which
	// Go would know of that order.
	answered atomic.Uint64
	// fd is the connection; twin one more descriptor of it that does not wait,
	// for dialogues, -1 where there are none. What is read of one is answered there.
	fd, twin int

	closing sync.RWMutex // read for a notice, written for the close of fd
	closed  bool         // guarded by closing

	mu      sync.Mutex
	readers map[*reader]struct{} // guarded by mu
	dead    atomic.Bool
	gone    chan struct{} // closed when dead
	waiting atomic.Int32  // readers that wait for a request
	loops   sync.WaitGroup
	buffers sync.Pool // of *buffers
	talk    talk
	crowd   crowding
	splicer splicer
	// foresight is of the filesystem, nil if it has none.
	foresight Foresight
}

// maxWaiting is how many goroutines wait for a request.
const maxWaiting = 3

const (
	// room is what a request or an answer is longer than its data.
	room = 4096
	// attrMost is how large the kernel's extended attributes and lists of them are.
	attrMost = 1 << 16
	// page is what the kernel looks up one of, to copy to or from.
	page = 4096
	// line is what the data of a WRITE and of a READ's answer is aligned to.
	line = 64
)

// buffers hold a request and its answer.
type buffers struct{ in, out []byte }

// newBuffers have room for any request with most bytes of data, and for most
// answers.
func newBuffers(most int) *buffers {
	return &buffers{aligned(max(most, attrMost)+room, unsafe.Sizeof(fuse.WriteIn{})), answerOf(2 * attrMost)}
}

// answerOf is a buffer for an answer with n bytes of data.
func answerOf(n int) []byte { return aligned(n+room, unsafe.Sizeof(fuse.OutHeader{})) }

// aligned returns n bytes that begin in the first line of a page, so that most
// requests, and answers, are in one, with what comes after head aligned.
func aligned(n int, head uintptr) []byte {
	b := make([]byte, n+page+line)
	skip := int(-uintptr(unsafe.Pointer(&b[0]))&(page-1) + -head&(line-1))
	return b[skip : skip+n : skip+n]
}

// reader takes requests.
type reader struct {
	*buffers
	fd     int           // where the request was read
	unique atomic.Uint64 // of the request that it is at work on, 0: none
	own    inPlace
	// pipes are what the next request comes through, nil where it is read. Of the
	// request at hand have bytes are in the buffer and the rest, piped, in a pipe.
	pipes       *pipes
	have, piped int
	// vain is for how many large READs it did not look for the next one the last time, rest
	// for how many it still does not (lookOut).
	vain, rest int
}

// head is the request's header.
func (r *reader) head() *fuse.InHeader { return (*fuse.InHeader)(unsafe.Pointer(&r.in[0])) }

// New mounts fs at dir: with DirectMount or DirectMountStrict with mount(2), and
// flags that are DirectMountFlags as they are, else through fusermount3. Of fs,
// Init is not called: it would be given go-fuse's server. The mount is seen when
// Show has been called, or before (by fusermount3, and where the kernel cannot else);
// whoever looks at it waits for Serve.
func New(fs fuse.RawFileSystem, dir string, o *fuse.MountOptions) (*Server, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	s := newServer(fs, o)
	s.dir, s.ownDecoding = dir, decodable(&s.opts)
	if direct(&s.opts) {
		var mnt int
		if s.fd, mnt = mountHidden(dir, &s.opts); mnt >= 0 {
			s.hidden.mnt = os.NewFile(uintptr(mnt), "a mount to be shown")
		}
	}
	if s.fd < 0 {
		if s.fd, err = mount(dir, &s.opts); err != nil {
			return nil, err
		}
	}
	if err := s.begin(); err != nil {
		return nil, errors.Join(err, s.unmount(), s.close())
	}
	return s, nil
}

// Attach serves fs by the descriptor fd of a mount that is there, whose largest
// read is o.MaxWrite, and which is not for Unmount. The descriptor is the server's
// from now on, also where there is an error. Requests that change something are
// never answered by the talker: they may last, and processes that are started for
// them would have its policy and its processor.
func Attach(fs fuse.RawFileSystem, fd int, o *fuse.MountOptions) (*Server, error) {
	s := newServer(fs, o)
	s.fd, s.readsOnly = fd, true
	if err := s.begin(); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

func newServer(fs fuse.RawFileSystem, o *fuse.MountOptions) *Server {
	s := &Server{opts: *o, fs: fs, readers: map[*reader]struct{}{}, gone: make(chan struct{}), fd: -1, twin: -1}
	normalize(&s.opts)
	s.crowd.pause, s.crowd.within = pauseFirst, rowTime
	s.buffers.New = func() any { return newBuffers(s.opts.MaxWrite) }
	s.foresight, _ = fs.(Foresight)
	s.splicer.files, _ = fs.(Files)
	s.splicer.sinks, _ = fs.(Sinks)
	s.splicer.most = s.opts.MaxWrite + 2*page
	s.proto = fuse.NewProtocolServer(fs, &s.opts)
	return s
}

// begin answers the first request.
func (s *Server) begin() error {
	if s.talk.init(&s.opts) {
		s.twin = twin(s.fd)
		s.talk.able.Store(s.twin >= 0)
		s.crowd.able = s.talk.all.Count() <= crowdMost && !s.readsOnly
	}
	if err := s.hello(); err != nil {
		return err
	}
	s.loops.Add(2) // Serve, and what the talker may add
	return nil
}

// hello answers INIT, the first request.
func (s *Server) hello() error {
	r := s.reader()
	defer s.end(r)
	n, err := s.read(r)
	if err != nil {
		return fmt.Errorf("the kernel's first request: %w", err)
	}
	var in fuse.InitIn
	copy(unsafe.Slice((*byte)(unsafe.Pointer(&in)), unsafe.Sizeof(in)), r.in[:n])
	s.kernel = in
	s.handle(r, n)
	return s.agreed(r)
}

// agreed takes in what r has answered to INIT.
func (s *Server) agreed(r *reader) error {
	if h := (*fuse.OutHeader)(unsafe.Pointer(&r.out[0])); h.Status != 0 {
		return fmt.Errorf("agree on a protocol with the kernel: %w", syscall.Errno(-h.Status))
	}
	s.longSetXattr = (*fuse.InitOut)(unsafe.Pointer(&r.out[headOut])).Flags&fuse.CAP_SETXATTR_EXT != 0
	return nil
}

// Serve answers requests until the mount is gone and the last of them is
// answered, and closes the descriptors. It does not wait for the talker's thread
// where that has nothing to answer; see doc.go.
func (s *Server) Serve() {
	s.loop(s.reader())
	<-s.gone
	s.talk.leave()
	s.loops.Done()
	s.loops.Wait()
	s.talk.looker.end()
	s.splicer.end()
	s.closing.Lock()
	defer s.closing.Unlock()
	s.closed = true
	_ = s.close() // nothing is written through it that could be lost
}

// Gone is closed when the kernel says that the mount is gone: there may be
// requests at work, but no more come.
func (s *Server) Gone() <-chan struct{} { return s.gone }

// close closes the descriptors, but for the one that the talker will.
func (s *Server) close() error {
	err := unix.Close(s.fd)
	if s.twin >= 0 && !s.talk.started {
		err = errors.Join(err, unix.Close(s.twin))
	}
	return err
}

func (s *Server) reader() *reader {
	r := &reader{buffers: s.buffers.Get().(*buffers), fd: s.fd}
	s.mu.Lock()
	s.readers[r] = struct{}{}
	s.mu.Unlock()
	return r
}

// end takes a reader away.
func (s *Server) end(r *reader) {
	s.mu.Lock()
	delete(s.readers, r)
	s.mu.Unlock()
	s.unpipe(r)
	s.buffers.Put(r.buffers)
}

// ensure starts a reader when none waits.
func (s *Server) ensure() {
	if s.waiting.Load() == 0 && !s.dead.Load() {
		s.spawn()
	}
}

// spawn starts a reader. It is called by what is counted in loops itself.
func (s *Server) spawn() {
	s.loops.Add(1)
	go s.loop(s.reader())
}

// loop reads and answers, apart.
func (s *Server) loop(r *reader) {
	defer s.loops.Done()
	defer func() { s.end(r) }()
	for s.mayWait(r) {
		n, err := s.read(r)
		left := s.waiting.Add(-1)
		if err != nil {
			s.lost(err)
			return
		}
		if left == 0 && !silent(r.head().Opcode) && !s.opts.SingleThreaded && s.open() {
			s.spawn()
		}
		if s.asked(r, n); s.crowd.alone.Load() == r {
			r = s.answerCrowd(r, n)
			continue
		}
		s.handle(r, n)
	}
}

// open tells whether any reader may wait: there is no dialogue, and no crowd.
func (s *Server) open() bool {
	return s.talk.phase.Load() != on && s.crowd.alone.Load() == nil
}

// mayWait counts r as one more that waits for a request, unless enough do, or
// another reads alone. Who does not wait sees to it that somebody does: the guard
// of what has just ended may have counted him.
func (s *Server) mayWait(r *reader) bool {
	if s.dead.Load() {
		return false
	}
	n := s.waiting.Add(1)
	if n <= maxWaiting && s.open() || s.crowd.alone.Load() == r && s.talk.phase.Load() != on {
		return true
	}
	s.waiting.Add(-1)
	s.crowd.alone.CompareAndSwap(r, nil)
	if s.open() {
		s.ensure()
	}
	return false
}

// read reads the next request, waiting for it.
func (s *Server) read(r *reader) (int, error) {
	for {
		n, no := s.readRequest(r)
		switch no {
		case 0:
			return n, nil
		case syscall.EINTR, syscall.EAGAIN, syscall.ENOENT: // ENOENT: interrupted before it was read
		default:
			return 0, no
		}
	}
}

// readRequest reads the next request, of n bytes with what is in r's pipe.
func (s *Server) readRequest(r *reader) (n int, no syscall.Errno) {
	r.have, r.piped = 0, 0
	if r.pipes != nil {
		n, no = s.readPiped(r)
	} else {
		n, no = readRequest(r)
	}
	if no == 0 {
		s.prepare(r, n)
	}
	return n, no
}

func readRequest(r *reader) (int, syscall.Errno) {
	n, _, no := syscall.Syscall(syscall.SYS_READ, uintptr(r.fd), uintptr(unsafe.Pointer(&r.in[0])), uintptr(len(r.in)))
	if no == 0 && n < unsafe.Sizeof(fuse.InHeader{}) {
		no = syscall.EPROTO
	}
	return int(n), no
}

// lost ends all readers: there are no more requests. Those at work are told, as
// INTERRUPT would, and if one is the talker's it need not wait for the guard.
func (s *Server) lost(err error) {
	if s.dead.Swap(true) {
		return
	}
	if !errors.Is(err, syscall.ENODEV) && !errors.Is(err, syscall.ECONNABORTED) {
		s.opts.Logger.Printf("read the kernel's requests: %v", err)
	}
	close(s.gone)
	s.talk.lift()
	s.mu.Lock()
	var at []uint64
	for r := range s.readers {
		if u := r.unique.Load(); u != 0 {
			at = append(at, u)
		}
	}
	s.mu.Unlock()
	for _, u := range at {
		s.interruptLater(fuse.InterruptIn{InHeader: fuse.InHeader{Length: uint32(unsafe.Sizeof(fuse.InterruptIn{})), Opcode: opInterrupt}, Unique: u})
	}
}

// handle answers the request of n bytes that r has read.
func (s *Server) handle(r *reader, n int) {
	if s.spliced(r) {
		s.answered.Add(1)
		return
	}
	s.answer(r, s.decode(r, n))
}

// answer gives the kernel the answer of k bytes.
func (s *Server) answer(r *reader, k int) {
	if k == 0 {
		return
	}
	// ENOENT: nobody waits for the answer any more.
	if no := s.write(r.fd, r.out[:k]); no != 0 && no != syscall.ENOENT && no != syscall.ENODEV {
		s.opts.Logger.Printf("answer a request (%d): %v", r.head().Opcode, no)
	}
}

// decode carries out a request, and returns the answer's length, 0 for none.
func (s *Server) decode(r *reader, n int) int {
	r.unique.Store(r.head().Unique)
	_ = s.answered.Load()
	k := s.carryOutAny(r, n)
	s.answered.Add(1)
	r.unique.Store(0)
	return k
}

// carryOutAny carries out a request that is noted as at work.
func (s *Server) carryOutAny(r *reader, n int) int {
	h := r.head()
	unique, op := h.Unique, h.Opcode
	if r.piped > 0 {
		if k := s.pour(r); k > 0 {
			return k
		}
	}
	if want := wanted(r, len(r.in)); want+room > len(r.out) {
		r.out = answerOf(want)
	}
	if op == opInterrupt && s.interrupt((*fuse.InterruptIn)(unsafe.Pointer(h)).Unique) {
		return 0
	}
	if k, ok := s.carryOutInPlace(r, n); ok {
		return k
	}
	k, st := s.proto.HandleRequest([][]byte{r.in[:n]}, [][]byte{r.out})
	out := (*fuse.OutHeader)(unsafe.Pointer(&r.out[0]))
	if op == opInterrupt && k != 0 && out.Status == -int32(syscall.EAGAIN) {
		s.interruptLater(*(*fuse.InterruptIn)(unsafe.Pointer(&r.in[0])))
		return 0
	}
	if !st.Ok() { // it could not be carried out at all
		*out = fuse.OutHeader{Length: uint32(unsafe.Sizeof(fuse.OutHeader{})), Status: -int32(st), Unique: unique}
		k = int(unsafe.Sizeof(fuse.OutHeader{}))
	}
	return k
}

// interruptLater interrupts a request that is not yet at work, or not any more.
// The kernel would send this again for an answer of EAGAIN, but only if the
// request had been read from the same descriptor.
func (s *Server) interruptLater(in fuse.InterruptIn) {
	const tries = 10 // for one that is being read just now
	s.loops.Add(1)
	go func() {
		defer s.loops.Done()
		out := make([]byte, room)
		for i := 0; i < tries || s.atWork(in.Unique); i++ {
			time.Sleep(time.Millisecond)
			if s.interrupt(in.Unique) {
				return
			}
			again := in
			if k, _ := s.proto.HandleRequest([][]byte{unsafe.Slice((*byte)(unsafe.Pointer(&again)), unsafe.Sizeof(again))}, [][]byte{out}); k == 0 {
				return
			}
		}
	}()
}

// atWork tells whether a reader has the request.
func (s *Server) atWork(unique uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for r := range s.readers {
		if r.unique.Load() == unique {
			return true
		}
	}
	return false
}

func (s *Server) write(fd int, p []byte) syscall.Errno {
	for {
		_, _, no := syscall.Syscall(syscall.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)))
		if no != syscall.EINTR {
			return no
		}
	}
}

// Unmount unmounts, and waits until nobody is at work; Serve then returns. EBUSY
// while files are open.
func (s *Server) Unmount() error {
	if err := s.unmount(); err != nil {
		return err
	}
	s.loops.Wait()
	return nil
}

// unmount takes the mount away, seen or not.
func (s *Server) unmount() error {
	if was, err := s.hidden.end(); was {
		return err
	}
	return Unmount(s.dir, &s.opts)
}

// KernelSettings returns what the kernel offered at the mount's beginning.
func (s *Server) KernelSettings() *fuse.InitIn {
	k := s.kernel
	return &k
}

// Crowds returns how often one reader answered alone: many programs, or one that reads much.
func (s *Server) Crowds() uint64 { return s.crowd.crowds.Load() }

// Dialogues returns how many there were, and in how many of them the server did
// not get its processor.
func (s *Server) Dialogues() (all, starved uint64) {
	return s.talk.talks.Load(), s.talk.starved.Load()
}
