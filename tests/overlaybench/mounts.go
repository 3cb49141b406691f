package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The line "mount" is about mounts that nobody uses. A round of a side makes one that
// does not count, then -mounts of them in the foreground and as many in the background,
// which is how a program that mounts for others calls it; each has an upper directory
// that is new, and a figure is the mean of one. A mount is there when its root has been
// looked at. In the background that is after the program that was started has ended,
// as its caller sees it. The end is when the process that served has ended. The
// kernel's has neither, and one way.
//
// Nothing is polled, for a poll that sleeps is late by a millisecond, and one that does
// not takes the processor that the program needs: the kernel tells of a new mount by
// /proc/self/mounts, and of the end of a process as of a child's (this program adopts
// the servers).

// stage is a part of a mount's time.
type stage int

const (
	total      stage = iota // in the foreground
	frontBegin              // start until it is there
	frontEnd                // umount(2) until the server has ended
	backBegin
	backEnd
	stages
)

// mountSteps are the line's steps, by stage; all but the first count in no mean.
func mountSteps() []step {
	return []step{
		{name: "mount and unmount"},
		{name: "… mount, in the foreground", part: true}, {name: "… unmount to the end", part: true},
		{name: "… mount, in the background", part: true}, {name: "… unmount to the end", part: true},
	}
}

// mounting is one round of one side.
func (b *bench) mounting(s *side, l *line) (figures []figure, err error) {
	lower, err := b.lower(l.lower)
	if err != nil {
		return nil, err
	}
	top := filepath.Join(b.dir, "round")
	defer func() { err = errors.Join(err, b.clear(top)) }()
	count := 1 + 2*b.mounts
	for i := range count {
		if err := b.mountPlace(filepath.Join(top, fmt.Sprint(i)), lower); err != nil {
			return nil, err
		}
	}
	var sum [stages]time.Duration
	var cpu time.Duration
	for i := range count {
		at, behind := filepath.Join(top, fmt.Sprint(i)), i > b.mounts
		if behind && (s.serve == nil || s.name == floor) {
			break
		}
		begin, end, used, err := b.mountOnce(s, lower, at, behind)
		switch {
		case err != nil:
			return nil, err
		case i == 0: // whatever is there for the first time
		case behind:
			sum[backBegin] += begin
			sum[backEnd] += end
		default:
			sum[total] += begin + end
			cpu += used
			sum[frontBegin] += begin
			sum[frontEnd] += end
		}
	}
	for _, d := range sum {
		figures = append(figures, figure{Value: d.Seconds() * 1e3 / float64(b.mounts)})
	}
	figures[total].CPU = cpu.Seconds() / float64(b.mounts)
	return figures, nil
}

// mountPlace makes what one mount needs beside its layers.
func (b *bench) mountPlace(at string, lower []string) error {
	dirs := []string{at + "/upper", at + "/work", at + "/mnt"}
	for _, d := range dirs {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	return b.hand(dirs...)
}

// mountOnce mounts and unmounts; used is the processor time of the server.
func (b *bench) mountOnce(s *side, lower []string, at string, behind bool) (begin, end, used time.Duration, err error) {
	mnt := at + "/mnt"
	start := time.Now()
	var cmd *exec.Cmd
	if s.serve == nil {
		err = unix.Mount("overlay", mnt, "overlay", 0, "lowerdir="+strings.Join(lower, ":")+",upperdir="+at+"/upper,workdir="+at+"/work")
	} else {
		args := s.serve(lower, at+"/upper", at+"/work", mnt)
		if behind {
			args = slices.DeleteFunc(args, func(a string) bool { return a == "-f" })
		}
		cmd = exec.Command(args[0], args[1:]...)
		err = b.starts(cmd, at, mnt, behind)
	}
	if err == nil {
		err = b.looked(mnt)
	}
	if err != nil {
		return 0, 0, 0, fmt.Errorf("%w: %s", err, saidAt(at))
	}
	begin = time.Since(start)
	if behind {
		// The server, which has nothing to do, has let go of the processor by then.
		time.Sleep(time.Millisecond)
	}
	start = time.Now()
	used, err = ends(cmd, mnt, behind)
	return begin, time.Since(start), used, err
}

// starts runs a program until it has mounted.
func (b *bench) starts(cmd *exec.Cmd, at, mnt string, behind bool) error {
	said, err := os.Create(at + "/said") // the end of a pipe would be waited for
	if err != nil {
		return err
	}
	cmd.Dir, cmd.SysProcAttr, cmd.Stderr = "/", b.who(), said
	if behind {
		err = cmd.Run()
	} else {
		err = shown(cmd, at, mnt)
	}
	return errors.Join(err, said.Close())
}

// busyMost is for how many tries, a millisecond apart, a mount may be busy.
const busyMost = 10_000

// ends unmounts, and waits for the end of the process that served.
func ends(cmd *exec.Cmd, mnt string, behind bool) (used time.Duration, err error) {
	err = unix.Unmount(mnt, 0)
	for try := 0; errors.Is(err, unix.EBUSY) && try < busyMost; try++ {
		time.Sleep(time.Millisecond) // fusermount3, or a server that looks at its mount
		err = unix.Unmount(mnt, 0)
	}
	switch {
	case err != nil || cmd == nil:
		return 0, err
	case behind:
		return adopted()
	}
	err = cmd.Wait()
	return cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(), err
}

// saidAt is what the program of that mount has printed.
func saidAt(at string) string {
	text, err := os.ReadFile(at + "/said")
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(text))
}

// looked returns once the mount has answered, to the user whose it is.
func (b *bench) looked(mnt string) error {
	answer := make(chan error)
	go func() {
		var st unix.Stat_t
		if b.user != 0 {
			runtime.LockOSThread() // for good: the thread ends with this
			for _, call := range []uintptr{unix.SYS_SETRESGID, unix.SYS_SETRESUID} {
				if _, _, no := unix.RawSyscall(call, uintptr(b.user), uintptr(b.user), uintptr(b.user)); no != 0 {
					answer <- no
					return
				}
			}
		}
		answer <- unix.Stat(mnt, &st)
	}()
	return <-answer
}

// shown starts a program, and returns once something is mounted on mnt.
func shown(cmd *exec.Cmd, at, mnt string) (err error) {
	mounts, err := unix.Open("/proc/self/mounts", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unix.Close(mounts)) }()
	var above unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, at, unix.AT_STATX_DONT_SYNC, unix.STATX_MNT_ID, &above); err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); {
		fds := []unix.PollFd{{Fd: int32(mounts), Events: unix.POLLPRI}}
		if _, err := unix.Poll(fds, 100); err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
		var st unix.Statx_t
		err := unix.Statx(unix.AT_FDCWD, mnt, unix.AT_STATX_DONT_SYNC|unix.AT_NO_AUTOMOUNT, unix.STATX_MNT_ID, &st)
		if err == nil && st.Mnt_id != above.Mnt_id || errors.Is(err, unix.EACCES) {
			return nil
		}
		if syscall.Kill(cmd.Process.Pid, 0) != nil {
			break
		}
	}
	return errors.Join(fmt.Errorf("%q did not mount", cmd.Args), cmd.Process.Kill(), cmd.Wait())
}

// adopt makes this process the parent of servers whose own has ended.
func adopt() error { return unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) }

// adopted waits for the end of a server, whose processor time it returns: there is
// no other child.
func adopted() (used time.Duration, err error) {
	var status unix.WaitStatus
	var use unix.Rusage
	for {
		_, err := unix.Wait4(-1, &status, 0, &use)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err == nil && status != 0 {
			err = fmt.Errorf("the server ended with status %#x", status)
		}
		return time.Duration(use.Utime.Nano() + use.Stime.Nano()), err
	}
}

// clear takes away what a round has made, as putAway does.
func (b *bench) clear(top string) error {
	if b.kind == onTmpfs {
		return os.RemoveAll(top)
	}
	b.away++
	return os.Rename(top, fmt.Sprintf("%s-%d", top, b.away))
}
