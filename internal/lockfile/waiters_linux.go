package lockfile

import (
	"bufio"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// kernelWaiters reads /proc/locks for the processes that are blocked on the
// file. A waiter's line is `N: -> POSIX  ADVISORY  WRITE PID MAJOR:MINOR:INODE
// START END`, with the device in hexadecimal (proc(5)).
func kernelWaiters(fi os.FileInfo) ([]int, error) {
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return nil, nil
	}
	file := fmt.Sprintf("%02x:%02x:%d", unix.Major(st.Dev), unix.Minor(st.Dev), st.Ino)
	locks, err := os.Open("/proc/locks")
	if err != nil {
		return nil, fmt.Errorf("who waits for locks: %w", err)
	}
	defer locks.Close() //nolint:errcheck // read only
	var pids []int
	lines := bufio.NewScanner(locks)
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		if len(f) < 7 || f[1] != "->" || f[6] != file {
			continue
		}
		if pid, err := strconv.Atoi(f[5]); err == nil && pid > 0 && !slices.Contains(pids, pid) {
			pids = append(pids, pid)
		}
	}
	slices.Sort(pids)
	return pids, lines.Err()
}
