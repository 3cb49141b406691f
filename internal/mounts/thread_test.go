//go:build linux

package mounts

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A mount program has the scheduling policy of the process, also where the thread that
// wants the mount has another, as a server's may have.
func TestProgramHasPolicyOfProcess(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	program := filepath.Join(dir, "program")
	// Field 41 of proc_pid_stat(5) is the policy.
	if err := os.WriteFile(program, []byte("#!/bin/sh\necho policy $(cut -d' ' -f41 /proc/self/stat) >&2\nexit 1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	target := filepath.Join(dir, "target")
	if err := os.Mkdir(target, 0o755); err != nil {
		t.Fatal(err)
	}
	said := make(chan error)
	idle := make(chan bool, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the runtime ends the thread
		var param struct{ priority int32 }
		_, _, no := unix.RawSyscall(unix.SYS_SCHED_SETSCHEDULER, 0, unix.SCHED_IDLE, uintptr(unsafe.Pointer(&param)))
		idle <- no == 0
		said <- Do(context.Background(), Plan{Target: target, Program: program, Dir: dir})
	}()
	if !<-idle {
		t.Fatal("no thread can be of SCHED_IDLE")
	}
	err := <-said
	if err == nil || !strings.Contains(err.Error(), "policy 0") {
		t.Errorf("the program says %v", err)
	}
}
