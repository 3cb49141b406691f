package fusefs

import (
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/fusetest"
	"github.com/plyfs/plyfs/internal/hosttree"
	"github.com/plyfs/plyfs/internal/vnode"
)

// roster is a directory whose entries come and go without a trace in its
// attributes.
type roster struct {
	base
	gen *atomic.Uint64
	mu  sync.Mutex
	set map[string]bool
}

func newRoster(name string, gen *atomic.Uint64, count int) *roster {
	d := &roster{base: base{name: name}, gen: gen, set: map[string]bool{}}
	for _, n := range permanent(count) {
		d.set[n] = true
	}
	return d
}

// permanent are the names of a roster that never go.
func permanent(count int) []string {
	names := make([]string, count)
	for i := range names {
		names[i] = fmt.Sprintf("permanent-%030d", i)
	}
	return names
}

func (d *roster) Attr(context.Context) (vnode.Attr, error) {
	return vnode.Attr{Ino: d.Ino(), Mode: syscall.S_IFDIR | 0o755, Nlink: 2, Mtime: time.Unix(1, 0)}, nil
}

func (d *roster) holds(name string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.set[name]
}

func (d *roster) put(name string, there bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.set[name] = there; !there {
		delete(d.set, name)
	}
	d.gen.Add(1)
}

func (d *roster) Lookup(_ context.Context, name string) (vnode.Child, error) {
	if !d.holds(name) {
		return vnode.Child{}, errno.ErrUnknown
	}
	return vnode.Child{Node: &moment{base: base{name: name}}, Entry: vnode.ValidStore, Attr: vnode.ValidStore}, nil
}

func (d *roster) ReadDir(context.Context) ([]vnode.Dirent, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	list := make([]vnode.Dirent, 0, len(d.set))
	for name := range d.set {
		list = append(list, vnode.Dirent{Name: name, Ino: inoOf(name), Type: syscall.S_IFREG})
	}
	sort.Slice(list, func(i, j int) bool { return list[i].Name < list[j].Name })
	return list, nil
}

// listed is a roster that the kernel may keep the list of.
type listed struct{ *roster }

func (listed) ListingHolds() bool { return true }

// registrar changes a roster from outside, as far as the kernel knows.
type registrar struct{ of *roster }

func (r registrar) Ino() uint64 { return inoOf("registrar of " + r.of.name) }
func (r registrar) Attr(context.Context) (vnode.Attr, error) {
	return vnode.Attr{Ino: r.Ino(), Mode: syscall.S_IFDIR | 0o755, Nlink: 2}, nil
}
func (r registrar) Lookup(_ context.Context, name string) (vnode.Child, error) {
	if r.of.holds(name) {
		return vnode.Child{Node: newDir("made "+name, &calls{}, nil)}, nil
	}
	return vnode.Child{}, errno.ErrUnknown
}
func (r registrar) ReadDir(context.Context) ([]vnode.Dirent, error) { return nil, nil }
func (r registrar) Mkdir(_ context.Context, name string, _ uint32) (vnode.Child, error) {
	r.of.put(name, true)
	return vnode.Child{Node: newDir("made "+name, &calls{}, nil)}, nil
}
func (r registrar) Rmdir(_ context.Context, name string) error {
	r.of.put(name, false)
	return nil
}

// Whoever reads a directory, in whatever steps, while others read it and its
// entries come and go, finds each entry that was there all the time once; and who
// begins anew finds what is there now.
func TestListingsWhileEntriesComeAndGo(t *testing.T) {
	t.Parallel()
	for name, count := range map[string]int{"small": 12, "big": 1500} {
		for _, kept := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s,kept=%v", name, kept), func(t *testing.T) {
				t.Parallel()
				var gen atomic.Uint64
				d := newRoster("list", &gen, count)
				var node vnode.Node = d
				if kept {
					node = listed{d}
				}
				root := newDir("/", &calls{}, map[string]vnode.Node{"list": node, "outside": registrar{of: d}})
				dir, _ := mounted(t, root, Options{Generation: gen.Load})
				r := fusetest.Child(t, "TestListingChild", "LIST="+dir, fmt.Sprint("COUNT=", count))
				if r.Status != 0 {
					t.Errorf("%s\n%s", r.Out, r.Err)
				}
			})
		}
	}
}

// stream is one open directory, and what it must still show.
type stream struct {
	fd      int
	seen    []string
	places  []int64         // behind each of seen
	there   map[string]bool // that were there since the beginning was read
	touched map[string]bool // that came or went since then
}

func (s *stream) begin(now map[string]bool) {
	s.seen, s.places, s.there, s.touched = nil, nil, maps.Clone(now), map[string]bool{}
}

// TestListingChild reads for TestListingsWhileEntriesComeAndGo.
func TestListingChild(t *testing.T) {
	if !fusetest.IsChild() {
		t.Skip("runs as a child of TestListingsWhileEntriesComeAndGo")
	}
	runtime.LockOSThread() // a thread of its own may read several lists at once
	defer runtime.UnlockOSThread()
	dir := os.Getenv("LIST")
	var count int
	if _, err := fmt.Sscan(os.Getenv("COUNT"), &count); err != nil {
		t.Fatal(err)
	}
	list, outside := filepath.Join(dir, "list"), filepath.Join(dir, "outside")
	rapid.Check(t, func(t *rapid.T) {
		now := map[string]bool{}
		for _, n := range permanent(count) {
			now[n] = true
		}
		for _, n := range namesIn(t, list) {
			if !now[n] {
				must(t, os.Remove(filepath.Join(outside, n)))
			}
		}
		var streams []*stream
		for range 3 {
			fd, err := unix.Open(list, unix.O_RDONLY|unix.O_DIRECTORY, 0)
			must(t, err)
			s := &stream{fd: fd}
			s.begin(now)
			streams = append(streams, s)
		}
		defer func() {
			for _, s := range streams {
				must(t, unix.Close(s.fd))
			}
		}()
		sizes := []int{2048, 8192, 32768}
		if count > 100 {
			sizes = []int{120, 1000, 8192, 32768, 1 << 17}
		}
		one := rapid.SampledFrom(streams)
		t.Repeat(map[string]func(*rapid.T){
			"read": func(t *rapid.T) {
				s := one.Draw(t, "stream")
				if len(s.seen) == 0 {
					s.begin(now)
				}
				s.read(t, rapid.SampledFrom(sizes).Draw(t, "size"))
			},
			"rewind": func(t *rapid.T) {
				s := one.Draw(t, "stream")
				_, err := unix.Seek(s.fd, 0, 0)
				must(t, err)
				s.begin(now)
			},
			"seek": func(t *rapid.T) {
				s := one.Draw(t, "stream")
				if len(s.seen) == 0 || count < 100 && len(s.touched) > 0 {
					t.Skip("nothing was read, or a small list has changed (docs/adr/0044)")
				}
				i := rapid.IntRange(0, len(s.seen)-1).Draw(t, "place")
				_, err := unix.Seek(s.fd, s.places[i], 0)
				must(t, err)
				s.seen, s.places = s.seen[:i+1], s.places[:i+1]
			},
			"change": func(t *rapid.T) {
				name := fmt.Sprintf("%c-passing-%d", 'a'+rapid.IntRange(0, 25).Draw(t, "letter"), count)
				path := filepath.Join(outside, name)
				if now[name] {
					must(t, os.Remove(path))
					delete(now, name)
				} else {
					must(t, os.Mkdir(path, 0o755))
					now[name] = true
				}
				for _, s := range streams {
					delete(s.there, name)
					s.touched[name] = true
				}
			},
			"list": func(t *rapid.T) {
				if got, want := namesIn(t, list), slices.Sorted(maps.Keys(now)); !slices.Equal(got, want) {
					t.Fatalf("the list is\n%q\nand should be\n%q", got, want)
				}
			},
		})
	})
}

func namesIn(t rapid.TB, dir string) (names []string) {
	entries, err := os.ReadDir(dir)
	must(t, err)
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func must(t rapid.TB, err error) {
	if err != nil {
		t.Helper()
		t.Fatal(err)
	}
}

// read takes what fits into size bytes.
func (s *stream) read(t *rapid.T, size int) {
	buf := make([]byte, size)
	n, err := unix.ReadDirent(s.fd, buf)
	must(t, err)
	for b := buf[:n]; len(b) > 0; { // struct linux_dirent64
		rec := b[:binary.NativeEndian.Uint16(b[16:])]
		b = b[len(rec):]
		s.seen = append(s.seen, strings.TrimRight(string(rec[19:]), "\x00"))
		s.places = append(s.places, int64(binary.NativeEndian.Uint64(rec[8:])))
	}
	times := map[string]int{}
	for _, name := range s.seen {
		if times[name]++; times[name] > 1 && !s.touched[name] {
			t.Fatalf("%s was listed twice", name)
		}
	}
	if n > 0 {
		return
	}
	for name := range s.there {
		if times[name] == 0 {
			t.Fatalf("%s was not listed among %d", name, len(s.seen))
		}
	}
}

// A directory that others change without a trace is read each time.
func TestHostListingIsNotKept(t *testing.T) {
	t.Parallel()
	host := t.TempDir()
	w, err := hosttree.Open("host", host, hosttree.Options{})
	if err != nil {
		t.Fatal(err)
	}
	dir, _ := mounted(t, w.Root(), Options{})
	got := fusetest.Must(t, `touch -d @1 $2; ls $1; for i in 1 2 3; do touch $2/$i; touch -d @1 $2; ls $1; ls $1; done`, dir, host)
	if want := "1\n1\n1\n2\n1\n2\n1\n2\n3\n1\n2\n3\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// private is a roster that only its owner may read.
type private struct{ listed }

func (p private) Attr(ctx context.Context) (vnode.Attr, error) {
	a, err := p.roster.Attr(ctx)
	a.Mode = syscall.S_IFDIR | 0o700
	return a, err
}

// Where the server checks who may read, the kernel keeps no list that not
// everybody may read.
func TestPrivateListingIsNotKept(t *testing.T) {
	t.Parallel()
	for _, check := range []*Check{nil, {UID: 0}} {
		var gen atomic.Uint64
		root := newDir("/", &calls{}, map[string]vnode.Node{"list": private{listed{newRoster("list", &gen, 5)}}})
		dir, s := mounted(t, root, Options{Check: check, Generation: func() uint64 { return 1 }})
		if !s.noOpenDir {
			t.Skip("this kernel opens no directories by itself")
		}
		fusetest.Must(t, `ls $1/list; ls $1/list; ls $1/list`, dir)
		want := uint64(2)
		if check != nil {
			want = 6
		}
		if got := requestsOf(s, "readdir", "readdirplus"); got != want {
			t.Errorf("check %v: %d requests to read the directory, want %d", check, got, want)
		}
	}
}

// A program that reads a copied listing into memory that never comes holds up an
// announcement for a while and not for good; afterwards nothing is kept, and all
// that is listed is right.
func TestListingIntoMemoryThatNeverComes(t *testing.T) {
	t.Parallel()
	var gen atomic.Uint64
	gen.Store(1)
	d := newRoster("list", &gen, 5)
	log, text := logged()
	asked := &calls{}
	other, _ := mounted(t, newDir("/", &calls{}, map[string]vnode.Node{"hang": &odd{base{name: "hang"}, asked}}), Options{})
	dir, s := mounted(t, newDir("/", &calls{}, map[string]vnode.Node{"list": listed{d}}), Options{Generation: gen.Load, Log: log})
	if !s.noOpenDir {
		t.Skip("this kernel opens no directories by itself")
	}
	ended := make(chan fusetest.Result, 1)
	ready := filepath.Join(t.TempDir(), "ready")
	go func() {
		ended <- fusetest.Child(t, "TestReadIntoHang", "LIST="+filepath.Join(dir, "list"), "HANG="+filepath.Join(other, "hang"), "READY="+ready)
	}()
	for end := time.Now().Add(time.Minute); !strings.Contains(asked.take(), "blocked"); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the program never came to read the directory")
		}
	}
	d.put("new", true)
	if err := s.Invalidate(t.Context(), gen.Load()); err != nil {
		t.Error(err)
	}
	if s.copies.Load() { // another kernel may not wait for the program
		t.Log("the copy was dropped all the same")
	} else if !strings.Contains(text(), "keeps the kernel from") {
		t.Errorf("the log says %q", text())
	}
	fusetest.Must(t, `kill -KILL $(cat $1)`, ready)
	<-ended
	for _, there := range []bool{false, true} {
		d.put("new", there)
		if err := s.Invalidate(t.Context(), gen.Load()); err != nil {
			t.Error(err)
		}
		for range 2 {
			if got := fusetest.Must(t, `ls $1/list`, dir); strings.Contains(got, "new") != there {
				t.Errorf("new is there: %v; listed is %q", there, got)
			}
		}
	}
}

// TestReadIntoHang reads for TestListingIntoMemoryThatNeverComes until it is killed.
func TestReadIntoHang(t *testing.T) {
	if !fusetest.IsChild() {
		t.Skip("runs as a child of TestListingIntoMemoryThatNeverComes")
	}
	f, err := os.Open(os.Getenv("HANG"))
	if err != nil {
		t.Fatal(err)
	}
	mem, err := unix.Mmap(int(f.Fd()), 0, 1<<16, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // the kernel has a copy then
		if _, err := os.ReadDir(os.Getenv("LIST")); err != nil {
			t.Fatal(err)
		}
	}
	fd, err := unix.Open(os.Getenv("LIST"), unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(os.Getenv("READY"), fmt.Append(nil, os.Getpid()), 0o600); err != nil {
		t.Fatal(err)
	}
	n, err := unix.Getdents(fd, mem)
	t.Fatalf("the memory came: %d, %v", n, err)
}
