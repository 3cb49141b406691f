package fuseoverlay

import (
	"errors"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/internal/fusetest"
	"github.com/plyfs/plyfs/internal/fusewire"
)

// prepared is r's mount before it is shown, and the end of its server.
func (r *rig) prepared() (*Server, <-chan error) {
	r.t.Helper()
	s, err := Prepare(r.config, r.mount)
	check(r.t, err)
	served := make(chan error, 1)
	go func() { served <- s.Serve() }()
	return s, served
}

// line is what the kernel says of r's mount, but for its numbers; "": there is none.
func (r *rig) line() string {
	r.t.Helper()
	return strings.TrimSpace(fusetest.Must(r.t, `grep " $1 " /proc/self/mountinfo | cut -d' ' -f4- || :`, r.mount))
}

// TestPreparedIsNotSeen: a mount comes into the tree when it is shown, as one that
// mount(2) has made, and one that is not shown leaves nothing.
func TestPreparedIsNotSeen(t *testing.T) {
	t.Parallel()
	needRoot(t)
	for name, change := range map[string]func(c *MountConfig){
		"plain":    func(*MountConfig) {},
		"flags":    func(c *MountConfig) { c.NoExec, c.NoSuid, c.NoDev, c.NoAtime = true, true, true, true },
		"readonly": func(c *MountConfig) { c.ReadOnly, c.FsName = true, "a source, with = and\ttab" },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, "echo text > f")
			change(&r.config)
			s, served := r.prepared()
			if _, ours := s.fuse.(*fusewire.Server); !ours {
				check(t, errors.Join(s.Unmount(), <-served))
				t.Skip("go-fuse's server is used here, whose mounts are seen at once")
			}
			if got := r.line(); got != "" {
				t.Errorf("before it is shown: %q", got)
			}
			check(t, s.Show())
			shown := r.line()
			check(t, unix.Unmount(r.mount, 0)) // the server has nothing to do with it any more
			check(t, <-served)
			r.config.GoFuse = true
			s, served = r.prepared()
			if want := r.line(); shown != want || want == "" {
				t.Errorf("shown:    %q\nmount(2): %q", shown, want)
			}
			check(t, errors.Join(s.Unmount(), <-served))
		})
	}
}

// TestNotShown: without Show the mount ends as any other.
func TestNotShown(t *testing.T) {
	t.Parallel()
	needRoot(t)
	r := newRig(t, "echo text > f")
	for range 3 {
		s, served := r.prepared()
		check(t, errors.Join(s.Unmount(), <-served))
	}
	if got := r.line(); got != "" {
		t.Errorf("there is %q", got)
	}
	// A place that is gone: what is elsewhere stays.
	s, served := r.prepared()
	check(t, os.Remove(r.mount))
	if err := s.Show(); !errors.Is(err, unix.ENOENT) {
		t.Errorf("shown where nothing is: %v", err)
	}
	check(t, errors.Join(s.Unmount(), <-served))
	check(t, os.Mkdir(r.mount, 0o755))
	why := errors.New("not yet")
	r.config.Begin = func() error { return why }
	if _, err := Prepare(r.config, r.mount); !errors.Is(err, why) {
		t.Errorf("Begin: %v", err)
	}
	r.config.Begin = nil
	r.start().do("test $(cat f) = text")
}

// TestDropping closes what it is given, and waits for it.
func TestDropping(t *testing.T) {
	t.Parallel()
	var d dropping
	for range 20 {
		var files []*os.File
		for range 10 {
			f, err := os.Open("/")
			check(t, err)
			files = append(files, f)
			d.drop(f)
		}
		d.wait()
		for _, f := range files {
			if _, err := f.Stat(); !errors.Is(err, os.ErrClosed) {
				t.Fatalf("not closed: %v", err)
			}
		}
	}
	f, err := os.Open("/")
	check(t, err)
	(*dropping)(nil).drop(f)
	if _, err := f.Stat(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("not closed: %v", err)
	}
}
