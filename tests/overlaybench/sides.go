package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// side is one of those that are compared.
type side struct {
	name string
	what string // the command or options, for the reader
	// serve returns the command that serves the mount, which is there when
	// something is mounted at mnt; nil where no process does.
	serve func(lower []string, upper, work, mnt string) []string
}

const (
	native = "native"
	kernel = "kernel"
	floor  = "floor"
	ours   = "ours"
	peer   = "fuse-overlayfs"
)

func (b *bench) sides() ([]side, error) {
	dirs := func(lower []string, upper, work string) string {
		return "lowerdir=" + strings.Join(lower, ":") + ",upperdir=" + upper + ",workdir=" + work
	}
	program := func(path, options string) func(lower []string, upper, work, mnt string) []string {
		return func(lower []string, upper, work, mnt string) []string {
			o := dirs(lower, upper, work)
			if options != "" {
				o += "," + options
			}
			return []string{path, "-f", "-o", o, mnt}
		}
	}
	all := []side{
		{native, "a directory", nil},
		{kernel, "mount -t overlay -o lowerdir,upperdir,workdir", nil},
		{floor, "go-fuse loopback, caching for good", func(_ []string, upper, _, mnt string) []string {
			return []string{b.self, "floor", upper, mnt}
		}},
	}
	peers := words(os.Getenv("OVERLAY_PEERS"))
	if path, err := exec.LookPath(peer); err == nil {
		peers = append([]string{peer + "=" + path}, peers...)
	} else {
		fmt.Println("no fuse-overlayfs here: it is left out")
	}
	for _, p := range peers {
		name, path, ok := strings.Cut(p, "=")
		if !ok {
			return nil, fmt.Errorf("OVERLAY_PEERS: %q is not NAME=PROGRAM", p)
		}
		all = append(all, side{name, path + " -o lowerdir,upperdir,workdir", program(path, "")})
	}
	what := strings.TrimSuffix("fuse-overlay -o lowerdir,upperdir,workdir,"+b.options, ",")
	all = append(all, side{ours, what, program(b.ours, b.options)})
	if len(b.with) == 0 {
		return all, nil
	}
	return slices.DeleteFunc(all, func(s side) bool { return !slices.Contains(b.with, s.name) }), nil
}

// mounted is a side's mount for one round of one line.
type mounted struct {
	dir  string // where it is used
	top  string // all that was made for it
	mnt  string // "" when nothing is mounted
	proc *exec.Cmd
	text bytes.Buffer
}

// mount makes the layers that the side needs and mounts them.
func (b *bench) mount(s *side, l *line) (*mounted, error) {
	lower, err := b.lower(l.lower)
	if err != nil {
		return nil, err
	}
	m := &mounted{top: filepath.Join(b.dir, "round")}
	upper, work, mnt := m.top+"/upper", m.top+"/work", m.top+"/mnt"
	for _, d := range []string{upper, work, mnt} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return m, err
		}
	}
	if s.name == native || s.name == floor {
		if upper, err = l.plain(lower, upper); err != nil {
			return m, err
		}
	}
	if err := b.hand(append([]string{upper, work, mnt}, lower...)...); err != nil {
		return m, err
	}
	if s.name == native {
		m.dir = upper
		return m, nil
	}
	m.dir, m.mnt = mnt, mnt
	if s.serve == nil {
		return m, unix.Mount("overlay", mnt, "overlay", 0, "lowerdir="+strings.Join(lower, ":")+",upperdir="+upper+",workdir="+work)
	}
	args := s.serve(lower, upper, work, mnt)
	m.proc = exec.Command(args[0], args[1:]...)
	m.proc.Stderr, m.proc.Dir, m.proc.SysProcAttr = &m.text, "/", b.who()
	if err := m.proc.Start(); err != nil {
		m.proc = nil
		return m, err
	}
	return m, m.wait()
}

// wait returns once something is mounted.
func (m *mounted) wait() error {
	var up unix.Stat_t
	if err := unix.Stat(m.top, &up); err != nil {
		return err
	}
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Microsecond) {
		var st unix.Stat_t
		if err := unix.Stat(m.mnt, &st); err == nil && st.Dev != up.Dev || errors.Is(err, unix.EACCES) { // an ordinary user's
			return nil
		}
		if p := m.proc.Process; syscall.Kill(p.Pid, 0) != nil {
			break
		}
	}
	return fmt.Errorf("%q did not mount: %s", m.proc.Args, m.text.String())
}

// end unmounts; remove takes what was written away too.
func (m *mounted) end() error {
	var err error
	if m.mnt != "" {
		for try := 0; ; try++ {
			if err = unix.Unmount(m.mnt, 0); !errors.Is(err, unix.EBUSY) || try == 100 {
				break
			}
			time.Sleep(20 * time.Millisecond)
		}
		m.mnt = ""
	}
	if m.proc != nil {
		if err != nil {
			err = errors.Join(err, m.proc.Process.Kill())
		}
		if werr := m.proc.Wait(); werr != nil {
			err = errors.Join(err, fmt.Errorf("%q: %w: %s", m.proc.Args, werr, m.text.String()))
		}
		m.proc = nil
	}
	return err
}

// putAway unmounts, and removes what was made. On ext4 that is done at the end
// of the run: for some minutes ext4, where it has no journal, looks at each inode of
// a group that was freed before it gives out a new one, which makes ten times
// slower whoever comes next.
func (b *bench) putAway(m *mounted, l *line) error {
	err := m.end()
	if b.kind == onTmpfs || l.bulky || err != nil {
		return errors.Join(err, os.RemoveAll(m.top))
	}
	b.away++
	return os.Rename(m.top, fmt.Sprintf("%s-%d", m.top, b.away))
}

// cpu returns the seconds that the serving process has used, 0 for none.
func (m *mounted) cpu() float64 {
	if m.proc == nil {
		return 0
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", m.proc.Process.Pid))
	if err != nil {
		return 0
	}
	f := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	user, err := strconv.ParseFloat(f[11], 64)
	if err != nil {
		return 0
	}
	system, err := strconv.ParseFloat(f[12], 64)
	if err != nil {
		return 0
	}
	return (user + system) / 100 // USER_HZ, the same on all of Linux's common systems
}

// resident returns the MiB of memory that the serving process has.
func (m *mounted) resident() float64 {
	if m.proc == nil {
		return 0
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", m.proc.Process.Pid))
	if err != nil {
		return 0
	}
	pages, err := strconv.ParseFloat(strings.Fields(string(text))[1], 64)
	if err != nil {
		return 0
	}
	return pages * float64(os.Getpagesize()) / (1 << 20)
}
