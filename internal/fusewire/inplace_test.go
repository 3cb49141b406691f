package fusewire

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"io"
	"log"
	"os"
	"syscall"
	"testing"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"pgregory.net/rapid"
)

// scribe notes what it is asked and answers with what follows from that.
type scribe struct {
	fuse.RawFileSystem
	heard []string
	fail  bool
	panic bool
}

func (f *scribe) note(op string, v ...any) (uint64, fuse.Status) {
	line := op + fmt.Sprintf(" %+v", v)
	f.heard = append(f.heard, line)
	if f.panic {
		f.heard[len(f.heard)] = line // one too far
	}
	h := fnv.New64a()
	_, _ = h.Write([]byte(line))
	if f.fail {
		return 0, fuse.Status(h.Sum64()%100 + 1)
	}
	return h.Sum64(), fuse.OK
}

func entry(out *fuse.EntryOut, k uint64) {
	out.NodeId, out.Generation, out.AttrValid, out.Ino, out.Mode = k, k>>1, k>>2, k>>3, uint32(k)
}

func (f *scribe) Lookup(_ <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	k, st := f.note("lookup", *h, name)
	entry(out, k)
	return st
}

func (f *scribe) Forget(id, n uint64) { _, _ = f.note("forget", id, n) }

func (f *scribe) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	k, st := f.note("getattr", *in)
	out.AttrValid, out.Size, out.Mode = k, k>>1, uint32(k)
	return st
}

func (f *scribe) SetAttr(_ <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	k, st := f.note("setattr", *in)
	out.AttrValid, out.Size, out.Mode = k, k>>1, uint32(k)
	return st
}

func (f *scribe) Mknod(_ <-chan struct{}, in *fuse.MknodIn, name string, out *fuse.EntryOut) fuse.Status {
	k, st := f.note("mknod", *in, name)
	entry(out, k)
	return st
}

func (f *scribe) Mkdir(_ <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	k, st := f.note("mkdir", *in, name)
	entry(out, k)
	return st
}

func (f *scribe) Unlink(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	_, st := f.note("unlink", *h, name)
	return st
}

func (f *scribe) Rmdir(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	_, st := f.note("rmdir", *h, name)
	return st
}

func (f *scribe) Rename(_ <-chan struct{}, in *fuse.RenameIn, from, to string) fuse.Status {
	_, st := f.note("rename", in.InHeader, in.Newdir, in.Flags, from, to)
	return st
}

func (f *scribe) Read(_ <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	k, st := f.note("read", *in, len(buf))
	if !st.Ok() {
		return nil, st
	}
	n := int(k % uint64(len(buf)+1))
	if k&1 == 0 {
		return fuse.ReadResultData(bytes.Repeat([]byte{byte(k)}, n)), st
	}
	for i := range n {
		buf[i] = byte(i)
	}
	return fuse.ReadResultData(buf[:n]), st
}

func (f *scribe) Write(_ <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	k, st := f.note("write", *in, string(data))
	return uint32(k), st
}

func (f *scribe) GetXAttr(_ <-chan struct{}, h *fuse.InHeader, name string, dest []byte) (uint32, fuse.Status) {
	k, st := f.note("getxattr", *h, name, len(dest))
	if !st.Ok() {
		return 0, st
	}
	return answerXattr(dest, bytes.Repeat([]byte{byte(k)}, int(k>>8%200)))
}

func (f *scribe) ListXAttr(_ <-chan struct{}, h *fuse.InHeader, dest []byte) (uint32, fuse.Status) {
	k, st := f.note("listxattr", *h, len(dest))
	if !st.Ok() {
		return 0, st
	}
	return answerXattr(dest, bytes.Repeat([]byte{byte(k)}, int(k>>8%200)))
}

func (f *scribe) SetXAttr(_ <-chan struct{}, in *fuse.SetXAttrIn, name string, data []byte) fuse.Status {
	_, st := f.note("setxattr", *in, name, string(data))
	return st
}

func (f *scribe) CopyFileRange(_ <-chan struct{}, in *fuse.CopyFileRangeIn) (uint32, fuse.Status) {
	k, st := f.note("copy_file_range", *in)
	return uint32(k), st
}

func answerXattr(dest, v []byte) (uint32, fuse.Status) {
	if len(dest) < len(v) {
		return uint32(len(v)), fuse.ERANGE
	}
	return uint32(copy(dest, v)), fuse.OK
}

// decoding returns a server with no mount, its filesystem and a reader.
func decoding(tb testing.TB) (*Server, *scribe, *reader) {
	tb.Helper()
	f := &scribe{RawFileSystem: fuse.NewDefaultRawFileSystem()}
	s := newServer(f, &fuse.MountOptions{
		MaxWrite: 1 << 17, ExtraCapabilities: fuse.CAP_SETXATTR_EXT, Logger: log.New(io.Discard, "", 0),
		PanicHandler: func(any) fuse.Status { return fuse.Status(syscall.EUCLEAN) },
	})
	s.ownDecoding = decodable(&s.opts)
	r := s.reader()
	tb.Cleanup(func() { s.end(r) })
	s.agree(tb, r)
	return s, f, r
}

// agree has go-fuse hear that the kernel can do all.
func (s *Server) agree(tb testing.TB, r *reader) {
	tb.Helper()
	const opInit = 26
	in := fuse.InitIn{Major: 7, Minor: 45, Flags: 1<<32 - 1}
	body := unsafe.Slice((*byte)(unsafe.Pointer(&in)), unsafe.Sizeof(in))[unsafe.Sizeof(in.InHeader):]
	s.decode(r, r.asking(opInit, body, nil, 0))
	if err := s.agreed(r); err != nil || !s.longSetXattr {
		tb.Fatal("no long SETXATTR was agreed on: ", err)
	}
}

// asking puts a request into the reader's buffer and returns its length. What is of fixed
// length and not named is random.
func (r *reader) asking(op uint32, body, rest []byte, extension uint16) int {
	const head = int(unsafe.Sizeof(fuse.InHeader{}))
	n := head + len(body) + len(rest)
	copy(r.in[head:], body)
	copy(r.in[head+len(body):], rest)
	*r.head() = fuse.InHeader{
		Length: uint32(n), Opcode: op, Unique: 77, NodeId: 12, TotalExtlen: extension,
		Caller: fuse.Caller{Owner: fuse.Owner{Uid: 1, Gid: 2}, Pid: 3},
	}
	return n
}

// ownKinds are the requests that are decoded here.
func ownKinds() (ops []uint32) {
	for op := range uint32(64) {
		if _, ok := shapeOf(op); ok {
			ops = append(ops, op)
		}
	}
	return ops
}

// Whatever is decoded here is given to the filesystem, and answered, as go-fuse
// does it: the same calls, the same bytes; and what go-fuse refuses is left to it.
func TestDecodesAsGoFuse(t *testing.T) {
	s, f, r := decoding(t)
	log.SetOutput(io.Discard) // go-fuse tells of each request that is too short
	t.Cleanup(func() { log.SetOutput(os.Stderr) })
	rapid.Check(t, func(t *rapid.T) {
		op := rapid.SampledFrom(ownKinds()).Draw(t, "op")
		sh, _ := shapeOf(op)
		body := rapid.SliceOfN(rapid.Byte(), int(sh.in)-40, int(sh.in)-40).Draw(t, "body")
		if at, ok := sizeAt()[op]; ok { // how much is asked for
			binary.LittleEndian.PutUint32(body[at:], uint32(rapid.SampledFrom([]int{0, 1, 100, 4096, 1 << 16}).Draw(t, "size")))
		}
		var rest []byte
		for range sh.names {
			name := rapid.SliceOfN(rapid.ByteRange(1, 255), 0, 300).Draw(t, "name")
			rest = append(append(rest, name...), 0)
		}
		if op == opWrite || op == opSetXattr {
			rest = append(rest, rapid.SliceOfN(rapid.Byte(), 0, 5000).Draw(t, "data")...)
		}
		cut := 0
		if rapid.IntRange(0, 9).Draw(t, "whole") == 0 {
			cut = rapid.IntRange(0, len(rest)+len(body)).Draw(t, "cut")
		}
		ext := uint16(0)
		if rapid.IntRange(0, 9).Draw(t, "plain") == 0 {
			ext = uint16(rapid.IntRange(1, 5).Draw(t, "extension"))
		}
		f.fail, f.panic = rapid.Bool().Draw(t, "fail"), rapid.IntRange(0, 9).Draw(t, "panic") == 0

		n := r.asking(op, body, rest, ext) - cut
		want := make([]byte, len(r.out))
		f.heard = nil
		k, st := s.proto.HandleRequest([][]byte{bytes.Clone(r.in[:n])}, [][]byte{want})
		theirs := f.heard
		f.heard = nil
		for i := range r.out { // of the request before
			r.out[i] = 0xa5
		}
		got, ok := s.carryOutInPlace(r, n)
		switch {
		case !ok && len(f.heard) != 0:
			t.Fatalf("left to go-fuse, and carried out: %q", f.heard)
		case !ok && cut == 0 && ext == 0:
			t.Fatalf("a whole request of kind %d was left to go-fuse", op)
		case !ok:
			return
		case !st.Ok():
			t.Fatalf("go-fuse refuses what was carried out: %v", st)
		case fmt.Sprint(f.heard) != fmt.Sprint(theirs):
			t.Fatalf("asked %q, by go-fuse %q", f.heard, theirs)
		case got != k || !bytes.Equal(r.out[:got], want[:k]):
			t.Fatalf("kind %d: answered %d bytes %x, by go-fuse %d %x", op, got, r.out[:min(got, 200)], k, want[:min(k, 200)])
		}
	})
}

// sizeAt is where, after the header, kinds of requests say how much they ask for.
func sizeAt() map[uint32]int { return map[uint32]int{opRead: 16, opGetXattr: 0, opListXattr: 0} }

// What asks for more than there is room for is left to go-fuse.
func TestDecodesNoOverlongRead(t *testing.T) {
	s, f, r := decoding(t)
	for op, at := range sizeAt() {
		sh, _ := shapeOf(op)
		body := make([]byte, int(sh.in)-40)
		binary.LittleEndian.PutUint32(body[at:], 1<<31)
		if _, ok := s.carryOutInPlace(r, r.asking(op, body, []byte("n\x00"), 0)); ok || len(f.heard) != 0 {
			t.Errorf("kind %d: carried out: %q", op, f.heard)
		}
	}
}

// A SETXATTR is of the short form where the long one was not agreed on.
func TestDecodesNoShortSetXattr(t *testing.T) {
	s, f, r := decoding(t)
	s.longSetXattr = false
	sh, _ := shapeOf(opSetXattr)
	if _, ok := s.carryOutInPlace(r, r.asking(opSetXattr, make([]byte, int(sh.in)-40), []byte("n\x00v"), 0)); ok || len(f.heard) != 0 {
		t.Errorf("carried out: %q", f.heard)
	}
}

// A request that is interrupted sees it, whoever decoded it; the next of the same reader
// is not.
func TestInterruptsOwn(t *testing.T) {
	s, _, r := decoding(t)
	if s.interrupt(77) {
		t.Error("a request that is not there was interrupted")
	}
	r.own.begin(77)
	first := r.own.cancel
	for range 2 {
		if !s.interrupt(77) {
			t.Error("a request at work was not interrupted")
		}
	}
	select {
	case <-first:
	default:
		t.Error("it does not see it")
	}
	r.own.end()
	if s.interrupt(77) {
		t.Error("one that has ended was interrupted")
	}
	r.own.begin(78)
	select {
	case <-r.own.cancel:
		t.Error("the next is interrupted too")
	default:
	}
}

// BenchmarkDecode is a GETATTR that the filesystem answers at once.
func BenchmarkDecode(b *testing.B) {
	for _, own := range []bool{false, true} {
		b.Run(map[bool]string{false: "go-fuse", true: "own"}[own], func(b *testing.B) {
			s, _, r := decoding(b)
			s.fs, s.ownDecoding = still{s.fs}, own
			s.proto = fuse.NewProtocolServer(s.fs, &s.opts)
			n := r.asking(opGetAttr, make([]byte, 16), nil, 0)
			b.ReportAllocs()
			for b.Loop() {
				if s.decode(r, n) != int(headOut+unsafe.Sizeof(fuse.AttrOut{})) {
					b.Fatal("no answer")
				}
			}
		})
	}
}

type still struct{ fuse.RawFileSystem }

func (still) GetAttr(<-chan struct{}, *fuse.GetAttrIn, *fuse.AttrOut) fuse.Status { return fuse.OK }
