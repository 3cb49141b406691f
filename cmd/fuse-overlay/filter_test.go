package main

import (
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/internal/fusetest"
)

// TestFilteredChild runs a program under a filter of system calls: a child of the test below.
func TestFilteredChild(t *testing.T) {
	args := strings.Fields(os.Getenv("FILTERED"))
	if len(args) < 2 {
		t.Skip("runs as a child of TestMoveMountRefused")
	}
	no, err := strconv.ParseUint(args[0], 10, 16)
	if err != nil {
		t.Fatal(err)
	}
	runtime.LockOSThread()
	refuse := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}, // the call's number
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: unix.SYS_MOVE_MOUNT},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(no)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	prog := unix.SockFprog{Len: uint16(len(refuse)), Filter: &refuse[0]}
	if _, _, no := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&prog))); no != 0 {
		t.Fatal("seccomp:", no)
	}
	t.Fatal(unix.Exec(args[1], args[1:], os.Environ()))
}

// TestMoveMountRefused: a sandbox's filter that knows fsmount(2) but not what is to
// come after it.
func TestMoveMountRefused(t *testing.T) {
	needsMount(t)
	t.Parallel()
	for _, no := range []syscall.Errno{unix.EPERM, unix.ENOSYS, unix.EINVAL, unix.EACCES} {
		dir, options := layers(t)
		cmd := exec.Command(fusetest.Exe(t), "-test.run=^TestFilteredChild$")
		cmd.Env = append(os.Environ(), "PLYFS_TEST_CHILD=1", "FILTERED="+strings.Join([]string{strconv.Itoa(int(no)), program, "-o", options, dir + "/m"}, " "))
		if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("%v: %v, %s", no, err, out)
			continue
		}
		fusetest.Must(t, `test "$(cat "$1/f")" = text`, dir+"/m")
		umount(t, dir+"/m")
	}
}
