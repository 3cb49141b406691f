package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/internal/spread"
)

// grace is how long processes that are ending may take to do so.
const grace = 5 * time.Second

// watch remembers how the machine was before the tests.
type watch struct {
	dir    string          // TMPDIR of the tests
	mounts map[string]bool // mount points there were
}

func newWatch() (*watch, error) {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return nil, fmt.Errorf("become the reaper of orphans: %w", err)
	}
	dir, err := shortDir(os.TempDir())
	if err != nil {
		return nil, err
	}
	_ = spread.Dirs(dir) // where there is nothing like it, nothing is lost
	all, err := mountPoints()
	if err != nil {
		return nil, err
	}
	w := &watch{dir: dir, mounts: map[string]bool{}}
	for _, m := range all {
		w.mounts[m] = true
	}
	return w, nil
}

// shortDir makes a folder with as short a name as there is: podman refuses run
// roots of over 50 bytes, and sockets 108. Everyone may pass through it, for
// tests that act as an ordinary user.
func shortDir(parent string) (string, error) {
	for n := range 1000 {
		dir := filepath.Join(parent, "p"+strconv.Itoa(n))
		err := os.Mkdir(dir, 0o700)
		if err == nil {
			return dir, os.Chmod(dir, 0o755)
		}
		if !errors.Is(err, fs.ErrExist) {
			return "", err
		}
	}
	return "", fmt.Errorf("%s has a thousand folders p0, p1, …: remove them", parent)
}

// close removes the folder of the run.
func (w *watch) close() error { return os.RemoveAll(w.dir) }

// leftovers names and removes what the tests left: processes first, since
// they may hold mounts, then mounts, then files. others are mount points that
// are new but not below the folder; they are left alone.
func (w *watch) leftovers() (left, others []string, err error) {
	procs, err := w.processes()
	if err != nil {
		return nil, nil, err
	}
	left = append(left, procs...)
	all, err := mountPoints()
	if err != nil {
		return nil, nil, err
	}
	slices.Reverse(all) // the last mounted go first
	for _, m := range all {
		switch {
		case strings.HasPrefix(m, w.dir+"/"):
			left = append(left, "mount "+m)
			if e := unix.Unmount(m, unix.MNT_DETACH); e != nil {
				err = errors.Join(err, fmt.Errorf("unmount %s: %w", m, e))
			}
		case !w.mounts[m]:
			others = append(others, m)
		}
	}
	if err != nil {
		return nil, nil, err // never remove files through a mount
	}
	entries, err := os.ReadDir(w.dir)
	for _, e := range entries {
		left = append(left, "file "+filepath.Join(w.dir, e.Name()))
	}
	return left, others, err
}

// processes waits a little for the orphans of the tests to end, then names
// those that do not, and kills them.
func (w *watch) processes() ([]string, error) {
	deadline := time.Now().Add(grace)
	for {
		reap()
		pids, err := children()
		if err != nil {
			return nil, err
		}
		if len(pids) == 0 {
			return nil, nil
		}
		if time.Now().Before(deadline) {
			time.Sleep(50 * time.Millisecond)
			continue
		}
		var left []string
		for _, pid := range pids {
			left = append(left, fmt.Sprintf("process %d %s", pid, commandLine(pid)))
			if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
				return left, fmt.Errorf("kill %d: %w", pid, err)
			}
		}
		time.Sleep(200 * time.Millisecond)
		reap()
		return left, nil
	}
}

// reap collects children that have ended.
func reap() {
	for {
		pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil)
		if pid <= 0 || err != nil {
			return
		}
	}
}

// children returns the process's own and adopted children.
func children() ([]int, error) {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, d := range dirs {
		stat, err := os.ReadFile(d + "/stat")
		if err != nil {
			continue // it has ended meanwhile
		}
		// "pid (name) state ppid …"; the name may hold anything.
		rest := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		if len(rest) > 1 && rest[1] == strconv.Itoa(os.Getpid()) {
			pid, err := strconv.Atoi(filepath.Base(d))
			if err != nil {
				return nil, err
			}
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

func commandLine(pid int) string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil || len(b) == 0 {
		return "(name not readable)"
	}
	return strings.TrimSpace(strings.ReplaceAll(string(b), "\x00", " "))
}

func mountPoints() ([]string, error) {
	infos, err := mountinfo.GetMounts(nil)
	if err != nil {
		return nil, fmt.Errorf("read the mount table: %w", err)
	}
	points := make([]string, 0, len(infos))
	for _, i := range infos {
		points = append(points, i.Mountpoint)
	}
	return points, nil
}
