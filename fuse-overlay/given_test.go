package fuseoverlay

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/internal/fusetest"
)

// givenFiles makes files of the sizes at which something changes, with contents of
// which no two pages are alike.
const givenFiles = `for s in 0 1 4095 4096 4097 8192 65535 65536 65537; do seq $((s * 7)) 1000000 | head -c $s > f$s; done; mkdir d; seq 2000 > d/g`

// undisturbed runs once, which returns a mount and what is wrong with it, again when
// that may be so because the kernel has forgotten files by itself: it does when memory
// is short, or somebody has it drop its caches.
func undisturbed(t *testing.T, once func() (*rig, []string)) {
	t.Helper()
	var last string
	for range 20 {
		r, wrong := once()
		if len(wrong) == 0 {
			return
		}
		if r.forgotten() == 0 {
			t.Fatal(strings.Join(wrong, "\n"))
		}
		last = strings.Join(wrong, "\n")
		r.stop()
	}
	t.Fatalf("each time the kernel had forgotten files; the last one:\n%s", last)
}

// forgotten is how many nodes there were that are not there any more.
func (r *rig) forgotten() int {
	o := r.server.o
	o.treeMu.Lock()
	defer o.treeMu.Unlock()
	return int(o.table.next) - rootID - o.table.nodes.n
}

// TestGiven counts requests: of small lower files there is no READ, and after they
// were read no GETATTR.
func TestGiven(t *testing.T) {
	t.Parallel()
	undisturbed(t, func() (*rig, []string) { return givenOnce(t) })
}

func givenOnce(t *testing.T) (r *rig, wrong []string) {
	t.Helper()
	r = passRig(t, givenFiles)
	r.config.GoFuse, r.config.Debug = true, true // it logs each request
	var said logText
	log := logrus.New()
	log.SetOutput(&said)
	r.config.Log = logrus.NewEntry(log)
	r.start()
	asked := func(op string) int {
		return len(regexp.MustCompile(`rx \d+: `+op+` `).FindAllString(said.String(), -1))
	}
	r.do("ls -l . d; cat d/g >$2/first")
	ready := asked("GETATTR")
	for range 2 {
		r.do(`for f in f* d/g; do cmp $f $2/l/a/$f; done; ls -l . d`)
	}
	if n := asked("READ"); n == 0 {
		t.Fatalf("no READ is logged, also not of the file that is too large: %s", said.String())
	}
	reads := regexp.MustCompile(`rx \d+: READ n(\d+) `).FindAllStringSubmatch(said.String(), -1)
	for _, m := range reads {
		if m[1] != reads[0][1] {
			wrong = append(wrong, fmt.Sprintf("READs of two files: %v", reads))
		}
	}
	if n := asked("GETATTR") - ready; n > 4 { // of the large one, and of what is not a file
		wrong = append(wrong, fmt.Sprintf("%d GETATTRs after the contents were given: %s", n, said.String()))
	}
	if s := r.server.Stats(); !strings.Contains(s, "\ngiven 8\n") {
		wrong = append(wrong, "stats: "+s)
	}
	return r, wrong
}

// TestGivenSizes: contents are right at each size, at once and after the kernel has
// let go of them, with both transports, and nothing is given where no OPEN is asked for.
func TestGivenSizes(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(r *rig){
		"passthrough": func(*rig) {},
		"go-fuse":     func(r *rig) { r.config.GoFuse = true },
		"default":     func(r *rig) { r.config.Passthrough = PassthroughOff },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			undisturbed(t, func() (*rig, []string) { return givenSizes(t, change) })
		})
	}
}

func givenSizes(t *testing.T, change func(r *rig)) (r *rig, wrong []string) {
	t.Helper()
	r = passRig(t, givenFiles)
	change(r)
	r.start()
	r.do(`same() { for f in f* d/g; do cmp $f $1/$f; [ $(stat -c %s $f) = $(stat -c %s $1/$f) ]; done; }
		same $2/l/a
		for f in f* d/g; do dd if=$f of=/dev/null iflag=nocache count=0 status=none; done
		same $2/l/a
		for f in f*; do echo more >> $f; cp $2/l/a/$f $2/want; echo more >> $2/want; cmp $f $2/want; done`)
	if o := r.server.o; o.pass != nil && o.pass.giving.files.Load() != 8 {
		wrong = append(wrong, fmt.Sprintf("%d files were given", o.pass.giving.files.Load()))
	}
	return r, wrong
}

const (
	raceFiles = 150
	raceSize  = 9000
)

// TestGivenRaces opens, reads, maps, writes, truncates and renames files at once, each
// for the first time, and compares what is seen with what was written last.
func TestGivenRaces(t *testing.T) {
	t.Parallel()
	r := passRig(t, fmt.Sprintf("for i in $(seq 0 %d); do seq $i 100000 | head -c %d > f$i; done", raceFiles-1, raceSize)).start()
	before := fusetest.Must(t, "cd $1; cat * | cksum", r.lowers[0])
	r.in("races")
	if n := r.server.o.pass.giving.files.Load(); n == 0 {
		t.Error("nothing was given")
	}
	r.stop()
	if now := fusetest.Must(t, "cd $1; cat * | cksum", r.lowers[0]); now != before {
		t.Error("the lower layer changed")
	}
}

// raced is a file at which many are at work. Who changes it holds mu for writing, who
// looks for reading; opening is done by all at once.
type raced struct {
	c    passChild
	mu   sync.RWMutex
	name string
	want []byte
}

func (c passChild) races() {
	for i := range raceFiles {
		name := fmt.Sprint("f", i)
		want, err := os.ReadFile(filepath.Join(filepath.Dir(c.dir), "l/a", name))
		check(c, err)
		f := &raced{c: c, name: name, want: want}
		at := []func(*rand.Rand){f.read, f.read, f.mapped, f.write, f.store, f.truncate, f.rename}
		rand.Shuffle(len(at), func(i, j int) { at[i], at[j] = at[j], at[i] })
		var all sync.WaitGroup
		start := make(chan struct{})
		for k, do := range at[:2+rand.IntN(len(at)-1)] {
			all.Add(1)
			go func() {
				defer all.Done()
				<-start
				do(rand.New(rand.NewPCG(uint64(i), uint64(k))))
			}()
		}
		close(start)
		all.Wait()
		if c.Failed() {
			return
		}
		// What the kernel has is what the server has.
		f.read(nil)
		file := f.open(os.O_RDONLY)
		check(c, unix.Fadvise(int(file.Fd()), 0, 0, unix.FADV_DONTNEED))
		f.same("read again", file)
		check(c, file.Close())
	}
}

// open opens the file by the name that it has.
func (f *raced) open(flags int) *os.File {
	for {
		f.mu.RLock()
		name := f.name
		f.mu.RUnlock()
		file, err := os.OpenFile(f.c.path(name), flags, 0)
		if err == nil {
			return file
		}
		if !os.IsNotExist(err) {
			f.c.Errorf("open %s: %v", name, err)
			runtime.Goexit()
		}
	}
}

func (f *raced) same(what string, file io.ReaderAt) {
	got := make([]byte, 2*raceSize)
	n, err := file.ReadAt(got, 0)
	if got = got[:n]; err != io.EOF || !bytes.Equal(got, f.want) {
		at := 0
		for at < min(len(got), len(f.want)) && got[at] == f.want[at] {
			at++
		}
		f.c.Errorf("%s, %s: %d bytes for %d, other ones from %d on (%v)", f.name, what, len(got), len(f.want), at, err)
	}
}

func (f *raced) read(*rand.Rand) {
	file := f.open(os.O_RDONLY)
	defer func() { _ = file.Close() }()
	f.mu.RLock()
	defer f.mu.RUnlock()
	f.same("read", file)
}

func (f *raced) mapped(*rand.Rand) {
	file := f.open(os.O_RDONLY)
	defer func() { _ = file.Close() }()
	f.mu.RLock()
	defer f.mu.RUnlock()
	if len(f.want) == 0 {
		return
	}
	m, err := unix.Mmap(int(file.Fd()), 0, len(f.want), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		f.c.Errorf("map %s: %v", f.name, err)
		return
	}
	if !bytes.Equal(m, f.want) {
		f.c.Errorf("%s, mapped, is other bytes", f.name)
	}
	_ = unix.Munmap(m)
}

// write writes whole pages, of which the kernel asks for nothing, and a part.
func (f *raced) write(r *rand.Rand) {
	file := f.open(os.O_RDWR)
	defer func() { _ = file.Close() }()
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, at := range [][2]int{{4096 * r.IntN(2), 4096}, {r.IntN(raceSize), 1 + r.IntN(100)}} {
		text := bytes.Repeat([]byte{byte('a' + r.IntN(26))}, at[1])
		if _, err := file.WriteAt(text, int64(at[0])); err != nil {
			f.c.Errorf("write %s: %v", f.name, err)
		}
		if end := at[0] + at[1]; end > len(f.want) {
			f.want = append(f.want, make([]byte, end-len(f.want))...)
		}
		copy(f.want[at[0]:], text)
	}
	f.same("just written", file)
}

// store changes a mapping, and leaves it to the kernel when that is written.
func (f *raced) store(r *rand.Rand) {
	file := f.open(os.O_RDWR)
	defer func() { _ = file.Close() }()
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.want) == 0 {
		return
	}
	m, err := unix.Mmap(int(file.Fd()), 0, len(f.want), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		f.c.Errorf("map %s: %v", f.name, err)
		return
	}
	for range 5 {
		at := r.IntN(len(m))
		m[at], f.want[at] = '!', '!'
	}
	f.same("just stored", file)
	_ = unix.Munmap(m)
}

func (f *raced) truncate(r *rand.Rand) {
	f.mu.Lock()
	defer f.mu.Unlock()
	size := r.IntN(len(f.want) + 1)
	f.want = f.want[:size]
	if r.IntN(4) > 0 {
		if err := os.Truncate(f.c.path(f.name), int64(size)); err != nil {
			f.c.Errorf("truncate %s: %v", f.name, err)
		}
		return
	}
	f.want = nil
	if file, err := os.OpenFile(f.c.path(f.name), os.O_RDONLY|os.O_TRUNC, 0); err != nil {
		f.c.Errorf("open %s with O_TRUNC: %v", f.name, err)
	} else {
		_ = file.Close()
	}
}

func (f *raced) rename(*rand.Rand) {
	f.mu.Lock()
	defer f.mu.Unlock()
	to := f.name + "-renamed"
	if err := os.Rename(f.c.path(f.name), f.c.path(to)); err != nil {
		f.c.Errorf("rename %s: %v", f.name, err)
	}
	f.name = to
}

// TestGivenSlowly: while a layer is slow to say what is in a file, those who open the
// same file or change it wait, and can be killed; others do not wait. A change is made
// after the contents were given.
func TestGivenSlowly(t *testing.T) {
	t.Parallel()
	r, s := slowLayer(t, 5000)
	r.config.Passthrough = PassthroughOnly
	r.start()
	defer open(s.rest)
	defer open(s.first)
	reader := r.waiting("exec cat d/f >$1/../read")
	<-s.read
	r.killed("who opens the file, too", r.waiting("exec cat d/f"), s)
	r.killed("who opens it for writing", r.waiting("exec dd if=/dev/null of=d/f conv=notrunc"), s)
	r.killed("who truncates it", r.waiting("exec truncate -s 5 d/f"), s)
	r.do("echo other > other; [ $(cat other) = other ]; [ $(stat -c %s d/f) = 5000 ]")
	cut := r.waiting("exec truncate -s 5 d/f")
	open(s.first)
	check(t, reader.Wait())
	check(t, cut.Wait())
	r.do(`[ $(stat -c %s d/f) = 5 ]; [ $(cat d/f | tr '\0' 0) = 00000 ]; echo x >> d/f; [ $(cat d/f | tr '\0' 0) = 00000x ]
		n=$(tr -d '\0' < $2/read | wc -c); [ $n = 0 ]`)
}

// TestGivenServerChild serves a mount until it is killed.
func TestGivenServerChild(t *testing.T) {
	if !fusetest.IsChild() {
		t.Skip("runs as a child of TestGivenServerKilled")
	}
	dir := os.Getenv("GIVEN_DIR")
	s, err := Mount(MountConfig{
		Lower: []string{filepath.Join(dir, "l/a")}, Upper: filepath.Join(dir, "u"), Work: filepath.Join(dir, "w"), Passthrough: PassthroughOnly,
	}, filepath.Join(dir, "m"))
	check(t, err)
	fmt.Println("mounted")
	check(t, s.Serve())
}

// TestGivenServerKilled: a server that is killed while programs open and read files
// ends, and so do they.
func TestGivenServerKilled(t *testing.T) {
	t.Parallel()
	r := newRig(t, "for i in $(seq 400); do seq $i 4000 > f$i; done")
	for round := range 4 {
		server := exec.Command(fusetest.Exe(t), "-test.run=^TestGivenServerChild$")
		server.Env = append(os.Environ(), "PLYFS_TEST_CHILD=1", "GIVEN_DIR="+r.dir)
		out, err := server.StdoutPipe()
		check(t, err)
		check(t, server.Start())
		line := make([]byte, len("mounted\n"))
		if _, err := io.ReadFull(out, line); err != nil || string(line) != "mounted\n" {
			_ = server.Process.Kill()
			t.Fatalf("the server says %q (%v): %v", line, err, server.Wait())
		}
		// The last file that is read before the kill is another one in each round.
		readers := exec.Command("sh", "-c", `cd $1; for k in 1 2 3; do cat f* >/dev/null 2>&1 & done; cat $(seq -f f%.0f $2) >/dev/null; kill -9 $3; wait; ! cat f400`,
			"sh", r.mount, fmt.Sprint(30*round+20), fmt.Sprint(server.Process.Pid))
		text, err := readers.CombinedOutput()
		if _ = server.Wait(); err != nil || !bytes.Contains(text, []byte("not connected")) { // killed
			t.Errorf("readers: %v: %s", err, text)
		}
		fusetest.Must(t, "umount $1", r.mount)
	}
}

// TestGivenUnmount: a mount ends while programs open its files, and goes on to be
// served until they have let go of it.
func TestGivenUnmount(t *testing.T) {
	t.Parallel()
	r := passRig(t, "for i in $(seq 300); do seq $i 4000 > f$i; done").start()
	readers := exec.Command("sh", "-c", `cd $1; echo there; for k in 1 2 3; do cat f* | cksum & done; wait`, "sh", r.mount)
	out, err := readers.StdoutPipe()
	check(t, err)
	check(t, readers.Start())
	there := make([]byte, len("there\n"))
	_, err = io.ReadFull(out, there)
	check(t, err)
	fusetest.Must(t, "umount -l $1", r.mount)
	sums, err := io.ReadAll(out)
	check(t, err)
	check(t, readers.Wait())
	want := fusetest.Must(t, "cd $1; cat f* | cksum", r.lowers[0])
	if string(sums) != strings.Repeat(want, 3) {
		t.Errorf("read %q, want thrice %q", sums, want)
	}
	if err := <-r.served; err != nil {
		t.Errorf("serve: %v", err)
	}
	r.served = nil
}
