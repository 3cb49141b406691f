package fusefs

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/fusetest"
	"github.com/plyfs/plyfs/internal/vnode"
)

func TestMain(m *testing.M) { os.Exit(fusetest.Main(m)) }

// mounted serves root at a new directory until the test ends; the server has
// then released and forgotten everything.
func mounted(t testing.TB, root vnode.Node, o Options) (string, *Server) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root mounts directly")
	}
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Skipf("no FUSE here: %v", err)
	}
	dir := t.TempDir()
	dev, err := Mount(t.Context(), dir, MountOptions{AllowOther: true, DefaultPermissions: o.Check == nil})
	if err != nil {
		t.Fatal(err)
	}
	s := New(root, o)
	if err := s.Start(dev); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := Unmount(context.Background(), dir, false); err != nil {
			t.Errorf("unmount: %v", err)
			if err := Unmount(context.Background(), dir, true); err != nil {
				t.Fatal(err)
			}
		}
		s.Wait()
		if st := s.Stats(); st.Inodes != 0 || st.Handles != 0 {
			t.Errorf("left after the unmount: %+v", st)
		}
	})
	return dir, s
}

// logged returns a logger and what it has written.
func logged() (*logrus.Entry, func() string) {
	var mu sync.Mutex
	var buf bytes.Buffer
	l := logrus.New()
	l.SetOutput(writerFunc(func(p []byte) (int, error) {
		mu.Lock()
		defer mu.Unlock()
		return buf.Write(p)
	}))
	l.SetLevel(logrus.DebugLevel)
	return logrus.NewEntry(l), func() string {
		mu.Lock()
		defer mu.Unlock()
		return buf.String()
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// What a shell does to a control file arrives as the calls that the control
// tree's rules are written for.
func TestRedirections(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, script, calls, value string }{
		{"echo", `echo x > $1`, `open(wt) flush write("x\n"@0) flush release`, "x\n"},
		{"append", `echo y >> $1`, `open(w) flush write("y\n"@4) flush release`, "old\ny\n"},
		{"cp", `echo z > /tmp/$$; cp /tmp/$$ $1; rm /tmp/$$`, `open(wt) write("z\n"@0) flush release`, "z\n"},
		{"truncated", `: > $1`, `open(wt) flush flush release`, ""},
		{"by path", `truncate -s 2 $1`, `open(w) truncate(2) flush release`, "ol"},
		{"truncate(2)", `perl -e 'truncate($ARGV[0], 1) or die' $1`, `open(w) truncate(1) flush release`, "o"},
		{"subshell", `( printf a; printf b ) > $1`, ``, "ab"},
		{"dup", `exec 3> $1; printf d >&3; exec 4>&3 3>&-; printf e >&4; exec 4>&-`, ``, "de"},
		{"read", `cat $1 > /dev/null`, `open(r) release`, "old\n"},
		{"tail", `tail -c 2 $1 > /dev/null`, `open(r) release`, "old\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			cl := &calls{}
			f := &text{base: base{name: "f"}, c: cl, value: "old\n"}
			dir, s := mounted(t, newDir("/", cl, map[string]vnode.Node{"f": f}), Options{})
			fusetest.Must(t, c.script, filepath.Join(dir, "f"))
			for s.Stats().Handles > 0 { // RELEASE is not waited for by close(2)
				time.Sleep(time.Millisecond)
			}
			got := cl.take()
			if c.calls != "" && got != c.calls {
				t.Errorf("the calls were %s, want %s", got, c.calls)
			}
			if f.value != c.value {
				t.Errorf("the value is %q, want %q", f.value, c.value)
			}
		})
	}
}

// An error of FLUSH reaches a program that looks at close(2), of each
// descriptor that was duplicated, and the errno is the one of the table.
func TestErrors(t *testing.T) {
	t.Parallel()
	log, text_ := logged()
	cl := &calls{}
	f := &text{base: base{name: "f"}, c: cl, value: "old\n"}
	root := ctlDir{newDir("/", cl, nil)}
	for n, k := range map[string]vnode.Node{
		"f": f, "panic": &odd{base{name: "panic"}, cl}, "enosys": &odd{base{name: "enosys"}, cl},
		"plain": &odd{base{name: "plain"}, cl}, "fixed": newDir("fixed", cl, nil),
	} {
		root.kids[n] = k
	}
	dir, _ := mounted(t, root, Options{Log: log})
	for _, c := range []struct{ script, want string }{
		{`printf bad > x; cp x $1/f`, "cp: failed to close '$1/f': Invalid argument"},
		{`printf bad | dd of=$1/f status=none`, "Invalid argument"},
		{`perl -e 'open(F, ">", "$ARGV[0]/f"); open(G, ">&", F); syswrite F, "bad"; print close(F) ? "ok" : $!, " "; print close(G) ? "ok" : $!; exit 1' $1 >&2`, "Invalid argument Invalid argument"},
		{`head -c 70000 /dev/zero > x; cp x $1/f`, "File too large"},
		{`cat $1/panic`, "Input/output error"},
		{`cat $1/enosys`, "Input/output error"},
		{`cat $1/plain`, "Input/output error"},
		{`cat $1/fixed`, "Is a directory"},
		{`cat $1/none`, "No such file or directory"},
		{`mkdir $1/taken`, "File exists"},
		{`mkdir $1/busy; rmdir $1/busy`, "Device or resource busy"},
		{`mkdir $1/fixed/x`, "Read-only file system"},
		{`rmdir $1/fixed/x`, "No such file or directory"},
		{`rm $1/f`, "Read-only file system"},
		{`ln $1/f $1/g`, "Read-only file system"},
		{`touch $1/new`, "Read-only file system"},
		{`mknod $1/p p`, "Read-only file system"},
		{`chmod 600 $1/f`, "Read-only file system"},
		{`touch $1/f`, "Read-only file system"},
		{`mkdir $1/a; perl -e 'rename("$ARGV[0]/a", "$ARGV[0]/fixed/a") or die $!' $1`, "Invalid argument"},
		{`mkdir $1/$(printf 'x%.0s' $(seq 256))`, "File name too long"},
		{`fallocate -l 10 $1/f`, "Operation not supported"},
		{`setfattr -n user.x -v y $1/f`, "Operation not supported"},
		{`getfattr -n user.none $1/f`, "No such attribute"},
		{`ls $1/f/x`, "Not a directory"},
	} {
		r := fusetest.Script(t, "export LC_ALL=C; cd $2; "+c.script, dir, t.TempDir())
		want := strings.ReplaceAll(c.want, "$1", dir)
		if r.Status == 0 || !strings.Contains(r.Err, want) {
			t.Errorf("%s: status %d, %q; want %q", c.script, r.Status, r.Err, want)
		}
	}
	if strings.HasPrefix(f.value, "bad") {
		t.Errorf("a refused write changed the value to %q", f.value)
	}
	if !strings.Contains(text_(), "on purpose") || !strings.Contains(text_(), "bad is bad") {
		t.Errorf("the log does not tell:\n%s", text_())
	}
}

func TestEntries(t *testing.T) {
	t.Parallel()
	cl := &calls{}
	root := ctlDir{newDir("/", cl, nil)}
	sub := ctlDir{newDir("sub", cl, nil)}
	root.kids["sub"], root.kids["f"] = sub, &text{base: base{name: "f"}, c: cl, value: "v"}
	dir, _ := mounted(t, root, Options{})
	fusetest.Must(t, `mkdir -m 700 $1/nodir 2>/dev/null || :; mkdir $1/d; mv $1/d $1/sub/e; test -d $1/sub/e; test ! -e $1/d; rmdir $1/sub/e`, dir)
	if got, want := cl.take(), "mkdir(nodir,755,uid=0)"; !strings.Contains(got, "rename(d,sub,e,") || !strings.Contains(got, "rmdir(e)") {
		t.Errorf("calls: %s, want %s…", got, want)
	}
	// A directory that is made again with the number of one that was removed
	// while somebody had it open: the kernel calls that one dead for good.
	fusetest.Must(t, `mkdir $1/again; exec 3< $1/again; rmdir $1/again; mkdir $1/again $1/again/in; rmdir $1/again/in $1/again`, dir)
	// A directory that turns out to be a symlink.
	fusetest.Must(t, `mkdir $1/nested; test "$(readlink $1/nested)" = elsewhere; mkdir -p $1/nested2; ln -s target $1/l; test "$(readlink $1/l)" = target`, dir)
	// Extended attributes, statfs, access, seek, inode numbers.
	fusetest.Must(t, `
		test "$(getfattr --only-values -n user.plyfs.error $1/f)" = "a sentence"
		test "$(getfattr $1/f 2>/dev/null | grep -c user)" = 2
		stat -f $1 > /dev/null
		test -w $1/f
		test "$(stat -c %i $1/f)" = "$(ls -i $1/f | cut -d' ' -f1)"
		test "$(ls -di $1/sub/.. | cut -d' ' -f1)" = "$(stat -c %i $1)"
		test "$(ls -a $1/sub | tr '\n' ' ')" = ". .. "
		perl -e 'open(F, "<", "$ARGV[0]/f"); $d = sysseek(F, 0, 3); $h = sysseek(F, 0, 4); exit !($d == 0 && $h == 1)' $1
		cp $1/f $2/copy; test "$(cat $2/copy)" = v`, dir, t.TempDir())
}

// A reader that is killed wakes the handler; the mount goes away while others
// sit in it.
func TestInterrupt(t *testing.T) {
	t.Parallel()
	cl := &calls{}
	dir, _ := mounted(t, newDir("/", cl, map[string]vnode.Node{"slow": &odd{base{name: "slow"}, cl}}), Options{})
	r := fusetest.Script(t, `timeout -s INT 0.3 cat $1/slow`, dir)
	if r.Status != 124 {
		t.Errorf("status %d: %s", r.Status, r.Err)
	}
	if got := cl.take(); got != "blocked woken" {
		t.Errorf("calls: %s", got)
	}
}

// An unmount that does not wait leaves nothing hanging: programs with files
// open get an error, Wait returns once they are gone, blocked ones wake.
func TestLazyUnmountWhileBusy(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root mounts directly")
	}
	cl := &calls{}
	dir := t.TempDir()
	dev, err := Mount(t.Context(), dir, MountOptions{})
	if err != nil {
		t.Fatal(err)
	}
	s := New(newDir("/", cl, map[string]vnode.Node{"slow": &odd{base{name: "slow"}, cl}, "f": &text{base: base{name: "f"}, c: cl}}), Options{})
	if err := s.Start(dev); err != nil {
		t.Fatal(err)
	}
	done := make(chan fusetest.Result, 1)
	go func() {
		done <- fusetest.Script(t, `exec 3< $1/f; cat $1/slow & echo $! ; sleep 0.5; kill $!; wait; cat <&3 | wc -c`, dir)
	}()
	for !strings.Contains(cl.take(), "blocked") {
		time.Sleep(time.Millisecond)
	}
	if err := Unmount(t.Context(), dir, false); errno.Of(err) != syscall.EBUSY {
		t.Errorf("unmount while busy: %v", err)
	}
	if err := Unmount(t.Context(), dir, true); err != nil {
		t.Error(err)
	}
	if r := <-done; r.Status != 0 {
		t.Errorf("the reader: %+v", r)
	}
	s.Wait()
	if st := s.Stats(); st.Inodes != 0 || st.Handles != 0 {
		t.Errorf("left: %+v", st)
	}
}

func TestMountPoints(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root mounts directly")
	}
	tmp := t.TempDir()
	file := filepath.Join(tmp, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	ours, _ := mounted(t, newDir("/", &calls{}, nil), Options{})
	link := filepath.Join(tmp, "link")
	if err := os.Symlink(ours, link); err != nil {
		t.Fatal(err)
	}
	stale := filepath.Join(tmp, "stale")
	if err := os.Mkdir(stale, 0o700); err != nil {
		t.Fatal(err)
	}
	dev, err := Mount(t.Context(), stale, MountOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := dev.Close(); err != nil { // the server dies before it says a word
		t.Fatal(err)
	}
	for _, c := range []struct {
		dir, want string
		kind      error
	}{
		{filepath.Join(tmp, "none"), "does not exist: make the directory first", errno.ErrUnknown},
		{file, "is not a directory", errno.ErrNotDir},
		{ours, "shows a plyfs tree already", errno.ErrInUse},
		{link, "shows a plyfs tree already", errno.ErrInUse},
		{stale, "whose server has died: run `plyfs umount", errno.ErrInUse},
	} {
		_, err := Mount(t.Context(), c.dir, MountOptions{})
		if err == nil || !strings.Contains(err.Error(), c.want) || !errors.Is(err, c.kind) {
			t.Errorf("%s: %v, want %s", c.dir, err, c.want)
		}
	}
	if err := Unmount(t.Context(), stale, false); err != nil {
		t.Errorf("unmount what a dead server left: %v", err)
	}
	if err := Unmount(t.Context(), stale, false); !errors.Is(err, errno.ErrBadValue) {
		t.Errorf("unmount nothing: %v", err)
	}
	if err := Unmount(t.Context(), "/proc", false); !errors.Is(err, errno.ErrBadValue) {
		t.Errorf("unmount what is not ours: %v", err)
	}
}

// Inodes are given back, and two names of one file are one inode with one
// page cache.
func TestForgetAndShare(t *testing.T) {
	t.Parallel()
	cl := &calls{}
	p := &page{base: base{name: "p"}, data: strings.Repeat("x", 10000)}
	q := &page{base: base{name: "p"}, data: p.data} // the same file, another Go value
	many := newDir("many", cl, nil)
	many.valid = vnode.ValidForever
	for i := 0; i < 500; i++ {
		n := &page{base: base{name: "many" + string(rune('a'+i%26)) + strings.Repeat("y", i/26)}}
		many.kids[n.name] = n
	}
	root := newDir("/", cl, map[string]vnode.Node{"p": p, "q": q, "many": many})
	root.valid = vnode.ValidForever
	dir, s := mounted(t, root, Options{})
	fusetest.Must(t, `cat $1/p $1/q $1/p > /dev/null; test $1/p -ef $1/q; ls -l $1/many > /dev/null`, dir)
	if p.reads.Load() != 1 || q.reads.Load() != 0 || q.forgot.Load() != 1 {
		t.Errorf("reads %d and %d, forgotten %d: want one page cache and one node", p.reads.Load(), q.reads.Load(), q.forgot.Load())
	}
	if n := s.Stats().Inodes; n < 500 {
		t.Errorf("%d inodes: READDIRPLUS did not fill the cache", n)
	}
	fusetest.Must(t, `sync; echo 2 > /proc/sys/vm/drop_caches`)
	for end := time.Now().Add(20 * time.Second); s.Stats().Inodes > 3 && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
	}
	if n := s.Stats().Inodes; n > 3 {
		t.Errorf("%d inodes after the kernel dropped its cache", n)
	}
	for name, n := range many.kids {
		if f := n.(*page).forgot.Load(); f != 1 {
			t.Fatalf("%s was forgotten %d times", name, f)
		}
	}
	fusetest.Must(t, `cat $1/p > /dev/null`, dir)
}

func TestNotifyProtocol(t *testing.T) {
	t.Parallel()
	_, s := mounted(t, newDir("/", &calls{}, nil), Options{})
	st := s.Stats()
	t.Logf("protocol 7.%d, epochs %v", st.Minor, st.Epochs)
	if st.Minor >= 44 && !st.Epochs {
		t.Errorf("a kernel of protocol 7.%d refuses FUSE_NOTIFY_INC_EPOCH", st.Minor)
	}
	if err := unix.Access("/dev/fuse", unix.W_OK); err != nil {
		t.Error(err)
	}
}
