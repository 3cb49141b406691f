package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/internal/fusetest"
)

// eachFront runs test with the program that forks before it begins and with the one
// that runs itself again, which must do the same.
func eachFront(t *testing.T, test func(t *testing.T, program string)) {
	t.Helper()
	needsMount(t)
	t.Parallel()
	for name, p := range map[string]string{"entry": program, "again": unlinked} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, p)
		})
	}
}

// waits starts the program with a work directory that is taken, so that it waits
// for it, and returns its process, that behind it, and how to let go of the directory.
func waits(t *testing.T, program, dir, options string) (first *exec.Cmd, says *bytes.Buffer, second int, free func()) {
	t.Helper()
	lock, err := os.Open(dir + "/work")
	if err == nil {
		err = unix.Flock(int(lock.Fd()), unix.LOCK_EX)
	}
	if err != nil {
		t.Fatal(err)
	}
	says = &bytes.Buffer{}
	first = exec.Command(program, "-o", options, dir+"/m")
	first.Stderr = says
	if err := first.Start(); err != nil {
		t.Fatal(err)
	}
	for second == 0 { // any thread may have started it, and others for a moment
		lists, err := filepath.Glob("/proc/" + strconv.Itoa(first.Process.Pid) + "/task/*/children")
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range lists {
			text, _ := os.ReadFile(l) // the thread has ended
			for _, child := range strings.Fields(string(text)) {
				if pid, err := strconv.Atoi(child); err == nil && leads(pid) {
					second = pid
				}
			}
		}
		time.Sleep(time.Millisecond)
	}
	return first, says, second, func() {
		if err := lock.Close(); err != nil {
			t.Error(err)
		}
	}
}

// leads tells whether a process leads a session.
func leads(pid int) bool {
	sid, err := unix.Getsid(pid)
	return err == nil && sid == pid
}

// TestToldToEnd: a signal to the process that waits ends the mount that is being made.
func TestToldToEnd(t *testing.T) {
	eachFront(t, func(t *testing.T, program string) {
		for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP} {
			dir, options := layers(t)
			first, says, _, free := waits(t, program, dir, options)
			if err := first.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
			_ = first.Wait() // its state says more
			free()           // not before: who is ready before the signal is passed on is mounted
			if first.ProcessState.ExitCode() != 1 {
				t.Errorf("%v: %v, %s", sig, first.ProcessState, says)
			}
			if mounted(t, dir+"/m") {
				t.Errorf("%v: it is mounted", sig)
			}
		}
	})
}

// TestToldTwice: whoever waits tells the other before a second signal can end it.
func TestToldTwice(t *testing.T) {
	eachFront(t, func(t *testing.T, program string) {
		dir, options := layers(t)
		first, _, second, free := waits(t, program, dir, options)
		for _, sig := range []syscall.Signal{syscall.SIGSTOP, syscall.SIGTERM, syscall.SIGINT, syscall.SIGCONT} {
			if err := first.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
		}
		state, err := first.Process.Wait() // by itself, or by the second signal
		if err != nil || state.Success() {
			t.Errorf("%v, %v", state, err)
		}
		free()
		exe, start := "/proc/"+strconv.Itoa(second)+"/exe", time.Now()
		for _, err := os.Readlink(exe); err == nil; _, err = os.Readlink(exe) {
			if time.Since(start) > time.Minute {
				umount(t, dir+"/m")
				t.Fatal("it is mounted, or the second process waits for something")
			}
			time.Sleep(time.Millisecond)
		}
		if mounted(t, dir+"/m") {
			t.Error("it is mounted")
		}
		_ = first.Wait() // for what has read its standard error
	})
}

// TestChildrenIgnored: a caller that ignores its children's ends is told what is wrong,
// and no more.
func TestChildrenIgnored(t *testing.T) {
	eachFront(t, func(t *testing.T, program string) {
		dir, options := layers(t)
		cmd := exec.Command("env", "--ignore-signal=CHLD", program, "-o", options, dir+"/none")
		out, _ := cmd.CombinedOutput() // its state says more
		if cmd.ProcessState.ExitCode() != 1 || strings.Count(string(out), "\n") != 1 || !strings.Contains(string(out), "none does not exist") {
			t.Errorf("%v: %q", cmd.ProcessState, out)
		}
	})
}

// TestKilledWhileStarting: the one that waits says so when the other is killed, and
// nothing is left.
func TestKilledWhileStarting(t *testing.T) {
	eachFront(t, func(t *testing.T, program string) {
		dir, options := layers(t)
		first, says, second, free := waits(t, program, dir, options)
		if err := syscall.Kill(second, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		_ = first.Wait() // its state says more
		if first.ProcessState.ExitCode() != 1 || says.String() != "fuse-overlay: the background process was ended by signal 9 (killed)\n" {
			t.Errorf("%v, %s", first.ProcessState, says)
		}
		free()
		if mounted(t, dir+"/m") {
			t.Error("it is mounted")
		}
		if _, e, status := callOf(t, program, "-o", options, dir+"/m"); status != 0 || e != "" {
			t.Errorf("afterwards: %d %q", status, e)
		}
		umount(t, dir+"/m")
	})
}

// TestBehind: the server is in a session of its own, holds nothing of its caller's,
// and is called as the program is; also where a caller has closed what others have open.
func TestBehind(t *testing.T) {
	eachFront(t, func(t *testing.T, program string) {
		for _, closed := range []string{"", "<&-", "<&- >&-", "<&- >&- 2>&-"} {
			dir, options := layers(t)
			r := fusetest.Script(t, `"$1" -o "$2" "$3/m" `+closed+` || exit
				for p in /proc/[0-9]*; do [ "$(tr '\0' ' ' < $p/cmdline 2>/dev/null)" = "$1 -o $2 $3/m " ] || continue
					cat $p/comm; cut -d' ' -f6 $p/stat | grep -qx ${p#/proc/} && echo leads; readlink $p/fd/[012] $p/cwd
				done`, program, options, dir)
			if r.Status != 0 || r.Out != "fuse-overlay\nleads\n/dev/null\n/dev/null\n/dev/null\n/\n" {
				t.Errorf("%q: %+v", closed, r)
			}
			umount(t, dir+"/m")
		}
	})
}

// TestDebugIsForeground: with -o debug the program serves until the mount is gone, or
// a signal comes, and its status is 0. It is itself the server, who is asked for numbers.
func TestDebugIsForeground(t *testing.T) {
	eachFront(t, func(t *testing.T, program string) {
		for _, how := range []string{"umount", "signal", "numbers"} {
			dir, options := layers(t)
			cmd := exec.Command(program, "-o", options+",debug", dir+"/m")
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			for !mounted(t, dir+"/m") {
				time.Sleep(time.Millisecond)
			}
			fusetest.Must(t, `test "$(cat "$1/f")" = text`, dir+"/m")
			if how == "numbers" {
				if err := cmd.Process.Signal(syscall.SIGUSR1); err != nil {
					t.Fatal(err)
				}
			}
			if how != "signal" {
				umount(t, dir+"/m")
			} else if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			if err := cmd.Wait(); err != nil || mounted(t, dir+"/m") {
				t.Errorf("%s: %v", how, err)
			}
		}
	})
}
