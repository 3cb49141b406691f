package fusefs

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/fusetest"
	"github.com/plyfs/plyfs/internal/vnode"
)

// turning is a tree whose every fact is the generation: `object` is another
// file in each, with the generation as its content and mtime; `n<N>` exists
// from generation N on; the directory's mtime is the generation. All of it
// may be believed until the store changes.
type turning struct {
	base
	gen atomic.Uint64
}

func (d *turning) Attr(context.Context) (vnode.Attr, error) {
	return vnode.Attr{Ino: d.Ino(), Mode: syscall.S_IFDIR | 0o755, Nlink: 2, Mtime: time.Unix(int64(d.gen.Load()), 0)}, nil
}

func (d *turning) Lookup(_ context.Context, name string) (vnode.Child, error) {
	g := d.gen.Load()
	var from uint64
	if n, _ := fmt.Sscanf(name, "n%d", &from); n == 1 && from > g {
		return vnode.Child{Entry: vnode.ValidStore}, nil
	} else if n == 0 && name != "object" {
		return vnode.Child{}, errno.ErrUnknown
	}
	return vnode.Child{Node: &moment{base: base{name: fmt.Sprint("moment", g)}, gen: g}, Entry: vnode.ValidStore, Attr: vnode.ValidStore}, nil
}

// Mkdir makes nothing but generation 9.
func (d *turning) Mkdir(context.Context, string, uint32) (vnode.Child, error) {
	d.gen.Store(9)
	return vnode.Child{Node: newDir("made", &calls{}, nil)}, nil
}

func (d *turning) ReadDir(context.Context) ([]vnode.Dirent, error) {
	return []vnode.Dirent{{Name: "object", Ino: inoOf(fmt.Sprint("moment", d.gen.Load())), Type: syscall.S_IFREG}}, nil
}

type moment struct {
	base
	gen uint64
}

func (m *moment) Attr(context.Context) (vnode.Attr, error) {
	a := regular(m.Ino(), 20)
	a.Mtime = time.Unix(int64(m.gen), 0)
	return a, nil
}
func (m *moment) Open(context.Context, int) (vnode.Handle, error) { return m, nil }
func (m *moment) Flags() vnode.OpenFlags                          { return vnode.DirectIO }
func (m *moment) ReadAt(_ context.Context, p []byte, off int64) (int, error) {
	s := fmt.Sprintf("%20d", m.gen)
	if off >= int64(len(s)) {
		return 0, nil
	}
	return copy(p, s[off:]), nil
}
func (m *moment) Release(context.Context) error { return nil }

// heldDir is another directory with the same attributes, which the reader
// holds open and never looks up again.
type heldDir struct {
	base
	turn *turning
}

func (h *heldDir) Attr(ctx context.Context) (vnode.Attr, error) {
	a, err := h.turn.Attr(ctx)
	a.Ino = h.Ino()
	return a, err
}
func (h *heldDir) Lookup(context.Context, string) (vnode.Child, error) {
	return vnode.Child{}, errno.ErrUnknown
}
func (h *heldDir) ReadDir(context.Context) ([]vnode.Dirent, error) { return nil, nil }

// names is a directory whose listing, and nothing else, tells the generation.
type names struct {
	base
	turn *turning
	read atomic.Int64
}

func (n *names) Attr(context.Context) (vnode.Attr, error) {
	return vnode.Attr{Ino: n.Ino(), Mode: syscall.S_IFDIR | 0o755, Nlink: 2, Mtime: time.Unix(1, 0)}, nil
}
func (n *names) Lookup(context.Context, string) (vnode.Child, error) {
	return vnode.Child{}, errno.ErrUnknown
}
func (n *names) ReadDir(context.Context) ([]vnode.Dirent, error) {
	n.read.Add(1)
	return []vnode.Dirent{{Name: fmt.Sprint(n.turn.gen.Load()), Ino: 3, Type: syscall.S_IFREG}}, nil
}
func (n *names) ListingHolds() bool { return true }

const flips = 10000

// No open, stat or listing is older than the generation that was announced
// before it began, while the store changes as fast as it can.
func TestNothingOlderThanAnnounced(t *testing.T) {
	t.Parallel()
	for _, how := range []struct{ noEpoch, known bool }{{false, false}, {false, true}, {true, true}} {
		noEpoch := how.noEpoch
		t.Run(fmt.Sprintf("epochs=%v,generation=%v", !noEpoch, how.known), func(t *testing.T) {
			t.Parallel()
			turn := &turning{base: base{name: "turn"}}
			held := &heldDir{base{name: "held"}, turn}
			root := newDir("/", &calls{}, map[string]vnode.Node{"turn": turn, "held": held, "names": &names{base: base{name: "names"}, turn: turn}})
			root.valid = vnode.ValidStore
			o := Options{NoEpoch: noEpoch}
			if how.known {
				o.Generation = turn.gen.Load
			}
			dir, s := mounted(t, root, o)
			if !noEpoch && !s.Stats().Epochs {
				t.Skipf("FUSE protocol 7.%d has no FUSE_NOTIFY_INC_EPOCH", s.Stats().Minor)
			}
			board, err := os.Create(filepath.Join(t.TempDir(), "announced"))
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := board.Close(); err != nil {
					t.Error(err)
				}
			}()
			stop := make(chan struct{})
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				turnOver(t, turn, s, board, stop)
			}()
			r := fusetest.Child(t, "TestWatcherChild", "WATCH="+filepath.Join(dir, "turn"), "BOARD="+board.Name())
			close(stop)
			<-ended
			if r.Status != 0 {
				t.Errorf("%s\n%s", r.Out, r.Err)
			}
		})
	}
}

// turnOver changes the store flips times (or until stop): the new state is
// there, the kernel is told, and only then it is announced.
func turnOver(t *testing.T, turn *turning, s *Server, board *os.File, stop chan struct{}) {
	var b [8]byte
	for g := uint64(1); g <= flips; g++ {
		turn.gen.Store(g)
		if err := s.Invalidate(t.Context(), g); err != nil {
			t.Error(err)
		}
		binary.LittleEndian.PutUint64(b[:], g)
		if _, err := board.WriteAt(b[:], 0); err != nil {
			t.Error(err)
		}
		select {
		case <-stop:
			return
		default:
		}
		if g%8 == 0 {
			time.Sleep(50 * time.Microsecond) // let the reader find something cached, too
		}
	}
}

// TestWatcherChild is the reader of TestNothingOlderThanAnnounced.
func TestWatcherChild(t *testing.T) {
	if !fusetest.IsChild() {
		t.Skip("runs as a child of TestNothingOlderThanAnnounced")
	}
	dir := os.Getenv("WATCH")
	board, err := os.Open(os.Getenv("BOARD"))
	if err != nil {
		t.Fatal(err)
	}
	held, err := os.Open(filepath.Join(dir, "../held"))
	if err != nil {
		t.Fatal(err)
	}
	// The look-up that found it may have begun before a change and been
	// answered after it: then the kernel is told once more, a moment later.
	for end := time.Now().Add(20 * time.Second); ; {
		st, err := held.Stat()
		if err != nil || time.Now().After(end) {
			t.Fatalf("an open directory never changes: %v %v", st, err)
		}
		if st.ModTime().Unix() > 0 {
			break
		}
	}
	time.Sleep(4 * again)
	stop := make(chan struct{})
	defer close(stop)
	for range 2 { // others that put listings into the kernel's memory
		go func() {
			for {
				select {
				case <-stop:
					return
				default:
					_, _ = os.ReadDir(filepath.Join(dir, "../names"))
				}
			}
		}()
	}
	seen := uint64(0)
	for seen < flips {
		var b [8]byte
		if n, _ := board.ReadAt(b[:], 0); n < 8 {
			continue
		}
		seen = binary.LittleEndian.Uint64(b[:])
		watch(t, dir, held, seen)
		if t.Failed() {
			return
		}
	}
}

func watch(t *testing.T, dir string, held *os.File, announced uint64) {
	var got uint64
	b, err := os.ReadFile(filepath.Join(dir, "object"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Sscan(string(b), &got); err != nil || got < announced {
		t.Errorf("open: %d (%v), announced was %d", got, err, announced)
	}
	for what, stat := range map[string]func() (os.FileInfo, error){
		"stat of the file":           func() (os.FileInfo, error) { return os.Stat(filepath.Join(dir, "object")) },
		"stat of the directory":      func() (os.FileInfo, error) { return os.Stat(dir) },
		"fstat of an open directory": func() (os.FileInfo, error) { return caughtUp(held, announced) },
		"stat of a new name":         func() (os.FileInfo, error) { return os.Stat(filepath.Join(dir, fmt.Sprint("n", announced))) },
	} {
		st, err := stat()
		if err != nil {
			t.Errorf("%s: %v (announced %d)", what, err, announced)
		} else if m := uint64(st.ModTime().Unix()); m < announced {
			t.Errorf("%s: %d, announced was %d", what, m, announced)
		}
	}
	kept, err := os.ReadDir(filepath.Join(dir, "../names"))
	if err != nil || len(kept) != 1 {
		t.Fatalf("a listing that is kept: %v %v", kept, err)
	}
	if n, err := strconv.ParseUint(kept[0].Name(), 10, 64); err != nil || n < announced {
		t.Errorf("a listing that is kept: %d (%v), announced was %d", n, err, announced)
	}
	if _, err := os.Stat(filepath.Join(dir, fmt.Sprint("n", announced+100))); err == nil {
		// a hundred changes went by meanwhile: fine
		return
	}
	list, err := os.ReadDir(dir)
	if err != nil || len(list) != 1 {
		t.Fatalf("readdir: %v %v", list, err)
	}
	if st, err := list[0].Info(); err != nil || uint64(st.ModTime().Unix()) < announced {
		t.Errorf("after readdir: %v %v, announced was %d", st, err, announced)
	}
}

// caughtUp is fstat on a descriptor that was open before: it alone may be late,
// until its notice is repeated (docs/adr/0041), but never stays behind.
func caughtUp(f *os.File, announced uint64) (st os.FileInfo, err error) {
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(again) {
		if st, err = f.Stat(); err != nil || uint64(st.ModTime().Unix()) >= announced {
			return st, err
		}
	}
	return st, err
}

// What holds until the store changes is not asked for twice, and is asked for
// again after a change; what a handler changes is known before it answers.
func TestStoreValidity(t *testing.T) {
	t.Parallel()
	turn := &turning{base: base{name: "turn"}}
	root := newDir("/", &calls{}, map[string]vnode.Node{"turn": turn})
	root.valid = vnode.ValidStore
	var asked atomic.Uint64
	dir, s := mounted(t, root, Options{Generation: func() uint64 { asked.Add(1); return turn.gen.Load() }})
	if !s.Stats().Epochs {
		t.Skipf("FUSE protocol 7.%d has no FUSE_NOTIFY_INC_EPOCH", s.Stats().Minor)
	}
	at := func() string { return fusetest.Must(t, `stat -c %Y $1/turn/object`, dir) }
	if got := at(); got != "0\n" {
		t.Fatalf("first: %s", got)
	}
	turn.gen.Store(7) // behind the server's back
	if got := at(); got != "0\n" {
		t.Errorf("%s although nobody invalidated: the name was not cached", got)
	}
	if err := s.Invalidate(t.Context(), 7); err != nil {
		t.Fatal(err)
	}
	if got := at(); got != "7\n" {
		t.Errorf("after Invalidate: %s", got)
	}
	// Who changes the store through the mount finds it changed, also where the
	// kernel remembers that a name is missing.
	fusetest.Must(t, `test ! -e $1/turn/n9; test ! -e $1/turn/n9; mkdir $1/turn/ninth; test -e $1/turn/n9; test "$(stat -c %Y $1/turn/object)" = 9`, dir)
}

// requestsOf returns how many requests of those kinds were answered.
func requestsOf(s *Server, kinds ...string) (n uint64) {
	for _, r := range s.Requests() {
		if slices.Contains(kinds, r.Kind) {
			n += r.Count
		}
	}
	return n
}

// A listing that holds until the store changes is read once, and again after
// a change.
func TestListingIsKept(t *testing.T) {
	t.Parallel()
	for _, how := range []struct{ noEpoch, known bool }{{false, true}, {true, true}, {true, false}} {
		t.Run(fmt.Sprintf("epochs=%v,generation=%v", !how.noEpoch, how.known), func(t *testing.T) {
			t.Parallel()
			turn := &turning{base: base{name: "turn"}}
			n := &names{base: base{name: "names"}, turn: turn}
			var gen atomic.Uint64
			o := Options{NoEpoch: how.noEpoch}
			if how.known {
				o.Generation = gen.Load
			}
			dir, s := mounted(t, newDir("/", &calls{}, map[string]vnode.Node{"names": n}), o)
			if !s.noOpenDir {
				t.Skip("this kernel opens no directories by itself")
			}
			for round := range uint64(3) {
				turn.gen.Store(round)
				for range 2 { // the second time it was something else that changed
					if err := s.Invalidate(t.Context(), gen.Add(1)); err != nil {
						t.Fatal(err)
					}
					if got := fusetest.Must(t, `for i in 1 2 3; do ls $1/names; done`, dir); got != strings.Repeat(fmt.Sprintln(round), 3) {
						t.Errorf("round %d: %q", round, got)
					}
				}
				if got := requestsOf(s, "readdir", "readdirplus"); got != 4*(round+1) {
					t.Errorf("round %d: %d requests to read directories", round, got)
				}
			}
			if got := requestsOf(s, "opendir"); got != 1 {
				t.Errorf("%d requests to open directories", got)
			}
		})
	}
}

// A shell that works in a directory goes on working there, and knows where it
// is, while the store changes and others walk the same paths.
func TestWorkingDirectory(t *testing.T) {
	t.Parallel()
	turn := &turning{base: base{name: "turn"}}
	sub := newDir("sub", &calls{}, map[string]vnode.Node{"turn": turn})
	sub.valid = vnode.ValidStore
	root := newDir("/", &calls{}, map[string]vnode.Node{"sub": sub})
	root.valid = vnode.ValidStore
	dir, s := mounted(t, root, Options{})
	stop := make(chan struct{})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for g := uint64(1); ; g++ {
			select {
			case <-stop:
				return
			default:
			}
			turn.gen.Store(g)
			if err := s.Invalidate(context.Background(), g); err != nil {
				t.Error(err)
			}
			time.Sleep(100 * time.Microsecond)
		}
	}()
	r := fusetest.Script(t, `set -e; cd $1/sub/turn
		( for i in $(seq 200); do stat $1/sub/turn/object > /dev/null; done ) & other=$!
		( cd $1/sub; for i in $(seq 100); do stat turn/object ../sub/turn > /dev/null; done ) & third=$!
		for i in $(seq 200); do
			test "$(/bin/pwd)" = $1/sub/turn || { echo "at $i: $(/bin/pwd 2>&1)"; bad=1; }
			cat object > /dev/null; ls > /dev/null; test . -ef $1/sub/turn
		done
		wait $other; wait $third; test -z "$bad"`, dir)
	close(stop)
	<-ended
	if r.Status != 0 {
		t.Errorf("%+v", r)
	}
}

// shelfDir is a directory whose list holds until the store changes, of
// directories that have their names for good.
type shelfDir struct{ *dir }

func (shelfDir) ListingHolds() bool { return true }

func (d shelfDir) ReadDir(ctx context.Context) ([]vnode.Dirent, error) {
	list, err := d.dir.ReadDir(ctx)
	for i := range list {
		list[i].Fixed = true
	}
	return list, err
}

// Reading a directory makes the kernel ask for its attributes once more. Of
// directories in one directory it is told with the second reading of that, not
// one by one; from the third on nothing is asked at all.
func TestAttributesAreToldTogether(t *testing.T) {
	t.Parallel()
	object := newDir("object", &calls{}, map[string]vnode.Node{})
	object.valid = vnode.ValidStore
	const kids = 8
	for i := range kids {
		kid := newDir(fmt.Sprint("kid", i), &calls{}, nil)
		kid.valid = vnode.ValidStore
		object.kids[kid.name] = shelfDir{kid}
	}
	root := newDir("/", &calls{}, map[string]vnode.Node{"object": shelfDir{object}})
	root.valid = vnode.ValidStore
	dir, s := mounted(t, root, Options{})
	if !s.noOpenDir {
		t.Skip("this kernel opens no directories by itself")
	}
	fusetest.Must(t, `stat $1/object`, dir)
	last := [3]uint64{}
	for pass, want := range [][3]uint64{{2 + 2*kids, 0, 0}, {2, 1, 0}, {0, 1, 0}, {0, 0, 0}} {
		if got := fusetest.Must(t, `find $1/object -type d | wc -l`, dir); got != fmt.Sprintln(1+kids) {
			t.Errorf("pass %d: %q", pass, got)
		}
		now := [3]uint64{requestsOf(s, "readdir", "readdirplus"), requestsOf(s, "getattr"), requestsOf(s, "lookup")}
		got := [3]uint64{now[0] - last[0], now[1] - last[1], now[2] - last[2]}
		last = now
		if pass == 0 {
			got[1], got[2] = 0, 0 // those of the beginning
		}
		if got != want {
			t.Errorf("pass %d: %v requests to read directories, for attributes, for names; want %v", pass, got, want)
		}
	}
}
