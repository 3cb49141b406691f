package fuseoverlay

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/plyfs/plyfs/internal/fusetest"
	"github.com/plyfs/plyfs/internal/fusewire"
	"github.com/plyfs/plyfs/internal/safefs"
)

// One upper, and one workdir, cannot be used by two mounts.
func TestUpperIsTakenOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t, "echo > a").start()
	fusetest.Must(t, "mkdir $1/u2 $1/w2 $1/m2", r.dir)
	for what, c := range map[string]MountConfig{
		"workdir " + r.dir + "/w is used by another mount":  {Lower: r.lowers, Upper: r.config.Upper, Work: r.config.Work},
		"workdir " + r.dir + "/w is used by another mount,": {Lower: r.lowers, Upper: r.dir + "/u2", Work: r.config.Work},
		"upperdir " + r.dir + "/u is used by another mount": {Lower: r.lowers, Upper: r.config.Upper, Work: r.dir + "/w2"},
	} {
		s, err := Mount(c, r.dir+"/m2")
		if err == nil {
			t.Errorf("mounted twice: %s", what)
			check(t, s.Unmount())
			check(t, s.Serve())
		} else if !strings.Contains(err.Error(), what) {
			t.Error(err)
		}
	}
	r.do("echo b > a")
}

// TestEndingServerIsWaitedFor: a mount waits for the server of one that is gone
// longer than for one that is there.
func TestEndingServerIsWaitedFor(t *testing.T) {
	t.Parallel()
	r := newRig(t, "echo a > a")
	check(t, os.Mkdir(r.config.Work+"/"+stageName, 0o700))
	held, err := os.Open(r.config.Work)
	check(t, err)
	check(t, unix.Flock(int(held.Fd()), unix.LOCK_EX))
	go func() {
		time.Sleep(mountVanishes + 500*time.Millisecond)
		_ = held.Close()
	}()
	r.start()
	r.do("cat a")
}

// TestMountIsNamed: who has a directory is said at once, with his name, while
// his server's namespace has the mount.
func TestMountIsNamed(t *testing.T) {
	t.Parallel()
	r := newRig(t, "echo > a").start()
	fusetest.Must(t, "mkdir $1/m2", r.dir)
	s, err := Mount(r.config, r.dir+"/m2")
	if err == nil {
		check(t, s.Unmount())
		check(t, s.Serve())
		t.Fatal("mounted twice")
	}
	if want := fmt.Sprintf("on %s by %s (process %d)", r.mount, holder{pid: os.Getpid()}.program(), os.Getpid()); !strings.Contains(err.Error(), want) {
		t.Errorf("%v, which does not say %q", err, want)
	}
}

// TestHolder: what is read of a holder is what was written, and of anything else
// nothing is believed.
func TestHolder(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 1<<30)
		h := holder{n.Draw(t, "pid"), n.Draw(t, "mount"), n.Draw(t, "major"), n.Draw(t, "minor"), "/" + rapid.String().Draw(t, "at")}
		if got, ok := parseHolder(h.String()); !ok || got != h {
			t.Errorf("%q is read as %+v, %v", h, got, ok)
		}
		text := h.String()
		cut := text[:rapid.IntRange(0, len(text)-2).Draw(t, "cut")]
		if got, ok := parseHolder(cut); ok {
			t.Errorf("%q is read as %+v", cut, got)
		}
	})
	for _, pid := range []int{os.Getpid(), 1 << 30} {
		if is, _ := (holder{pid: pid, mount: 1 << 30}).mounted(); is {
			t.Errorf("a mount that does not exist is in the namespace of %d", pid)
		}
	}
}

// TestGoneIsKnownAtOnce: that a mount is gone is known to others while a request
// is at work still, which they then wait for.
func TestGoneIsKnownAtOnce(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("mount(2) needs root")
	}
	layer, asked, free := hungLayer(t)
	r := newRig(t, "")
	lowers := r.config.Lower
	r.config.Lower = append(r.config.Lower, layer)
	r.start()
	if _, ours := r.server.fuse.(*fusewire.Server); !ours {
		t.Skip("go-fuse reads the requests: one processor, or no schedstat")
	}
	cmd := exec.Command("sh", "-c", `[ -e "$1/slow/hang" ]`, "sh", r.mount)
	check(t, cmd.Start())
	asked()
	cut := unix.Unmount(r.mount, unix.MNT_FORCE) // cuts the connection, and is refused where the mount is in use then
	_ = cmd.Wait()                               // its request has failed
	if cut != nil {
		fusetest.Must(t, "umount $1", r.mount)
	}
	top, err := safefs.OpenRoot(r.config.Work)
	check(t, err)
	w := work{top: top}
	giveUp := time.After(time.Minute)
	for at := unknown; at != ending; at, _ = w.holder() {
		select {
		case <-giveUp:
			t.Fatal("nobody can know that the mount is gone")
		case err := <-r.served:
			t.Fatalf("the server has ended beside a request: %v", err)
		case <-time.After(time.Millisecond):
		}
	}
	check(t, top.Close())
	r.config.Lower = lowers
	first := r.served
	r.served = nil
	freed := make(chan struct{})
	go func() {
		defer close(freed)
		free()
	}()
	r.start()
	<-freed
	check(t, <-first)
	r.do("test ! -e slow; echo > new")
}

// TestWorkdirHandsNothingDown: ACLs and the set-group-ID bit of workdir, and of
// what an earlier mount left there, are none of the files'.
func TestWorkdirHandsNothingDown(t *testing.T) {
	t.Parallel()
	work := `umask 022; echo x >> f; chmod 755 d; chmod 777 .; setpriv --reuid 1000 --regid 1000 --clear-groups sh -c 'umask 022; echo > new; mkdir newd; ln -s x newl; mkfifo p'`
	show := "cd $1; for p in f d new newd newl p; do stat -c '%n %A %u %g' $p; test -h $p || getfacl -ncp $p; done"
	for _, dirs := range []string{"w", "w/work w/index"} {
		r := newRig(t, "echo hi > f; mkdir d; chmod 644 f")
		const prepare = "cd $1; mkdir -p w/work w/index plain; cp -a l/a/. plain; for d in $2; do setfacl -d -m u:1234:rwx,g::rwx,o::rwx $d; chgrp 1234 $d; chmod g+s $d; done"
		fusetest.Must(t, prepare, r.dir, dirs)
		fusetest.Must(t, "cd $1; "+work, r.dir+"/plain")
		r.start()
		r.do(work)
		r.stop()
		want, got := fusetest.Must(t, show, r.dir+"/plain"), fusetest.Must(t, show, r.config.Upper)
		if want != got {
			t.Errorf("%s: want %s\ngot %s", dirs, want, got)
		}
	}
}

// TestFullUpperIsNoPoorOne: a filesystem that is full is not taken for one that
// has no devices, attributes or nameless files: the upper's format would change.
func TestFullUpperIsNoPoorOne(t *testing.T) {
	t.Parallel()
	for inodes := 6; inodes < 14; inodes++ {
		r := newRig(t, "echo a > a; ln a b")
		at := r.dir + "/at"
		fusetest.Must(t, `mkdir $1 && mount -t tmpfs -o size=8m,nr_inodes=$2 x $1 && mkdir $1/u $1/w`, at, strconv.Itoa(inodes))
		t.Cleanup(func() { check(t, unix.Unmount(at, unix.MNT_DETACH)) })
		r.config.Upper, r.config.Work = at+"/u", at+"/w"
		o, err := newOverlay(r.config)
		switch {
		case err != nil && !strings.Contains(err.Error(), unix.ENOSPC.Error()):
			t.Errorf("%d inodes: %v", inodes, err)
		case err == nil && (o.work.prefix != trustedPrefix || o.work.dotWh || o.work.index == nil || !o.work.swap || !o.work.cover):
			t.Errorf("%d inodes: %+v", inodes, o.work)
		}
		if err == nil {
			check(t, o.close())
		} else if inodes == 13 {
			t.Errorf("still no room: %v", err)
		}
	}
}

// TestLayersMayMove: layers stay what they were when the mount was made, even
// where their paths lead elsewhere, into the mount itself too.
func TestLayersMayMove(t *testing.T) {
	t.Parallel()
	const fill = "echo root > rootfile; for i in $(seq 40); do mkdir -p a/d$i; echo $i > a/d$i/f; done"
	const work = `cat a/*/f | wc -l; cat rootfile; echo new > new; ls; mkdir a/d1/n; rm -r a/d2; cat a/*/f | wc -l`
	const want = "40\nroot\na\nnew\nrootfile\n39\n"
	r := newRig(t, fill)
	r.config.Descriptors = 8
	r.start()
	fusetest.Must(t, "cd $1; mv l l.moved; mv u u.moved", r.dir)
	if got := r.do(work); got != want {
		t.Errorf("moved: %s", got)
	}
	r.stop()
	over := newRig(t, fill)
	over.config.Descriptors = 8
	over.mount = over.lowers[0]
	over.start()
	if got := over.do(work); got != want {
		t.Errorf("mounted over a layer: %s", got)
	}
}
