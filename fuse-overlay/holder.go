package fuseoverlay

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/internal/safefs"
)

// holder says who has workdir: what a mount writes down of itself in the stage,
// which the next one sweeps. Its locks say that somebody has workdir, this where to
// look whether he still has a mount.
type holder struct {
	pid          int
	mount        int // the mount's ID, in the namespace of pid
	major, minor int // its filesystem
	at           string
}

// holderName is of no staged name's form; mostHolder bounds what is read, in
// bytes.
const (
	holderName = "holder"
	mostHolder = 1 << 14
)

// String is the file's content.
func (h holder) String() string {
	return fmt.Sprintf("%d %d %d:%d %s\n", h.pid, h.mount, h.major, h.minor, strconv.Quote(h.at))
}

// parseHolder reads what String wrote; anybody else may have, too.
func parseHolder(text string) (h holder, ok bool) {
	n, err := fmt.Sscanf(text, "%d %d %d:%d %q\n", &h.pid, &h.mount, &h.major, &h.minor, &h.at)
	return h, err == nil && n == 5 && h.pid > 0
}

// sign writes down that this process has, or is about to have, mounted at dir what has
// the numbers st. Without it others only wait longer.
func (w *work) sign(dir string, st *unix.Statx_t) error {
	h := holder{os.Getpid(), int(st.Mnt_id), int(st.Dev_major), int(st.Dev_minor), dir}
	f, err := w.stage.Open(holderName, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	w.signed = true
	_, err = io.WriteString(f, h.String())
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

// signed returns who has written that he has workdir, if he holds its lock.
func signed(top *safefs.Dir) (h holder, ok bool) {
	stage, err := top.OpenDir(stageName)
	if err != nil {
		return h, false
	}
	defer stage.Close() //nolint:errcheck // O_PATH: nothing to lose
	f, err := stage.Open(holderName, unix.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return h, false
	}
	defer f.Close() //nolint:errcheck // only read
	text, err := io.ReadAll(io.LimitReader(f, mostHolder))
	if err != nil {
		return h, false
	}
	st, err := top.Stat(".")
	if h, ok = parseHolder(string(text)); !ok || err != nil {
		return h, false
	}
	return h, locks(h.pid, st.Ino)
}

// locks tells whether a process has a flock on a file of a number. Of which
// filesystem is not compared: /proc/locks has another number than stat for btrfs.
func locks(pid int, ino uint64) bool {
	f, err := os.Open("/proc/locks")
	if err != nil {
		return false
	}
	defer f.Close() //nolint:errcheck // only read
	for lines := bufio.NewScanner(f); lines.Scan(); {
		// N: FLOCK ADVISORY WRITE PID MAJOR:MINOR:INODE START END (proc_locks(5))
		w := strings.Fields(lines.Text())
		if len(w) > 5 && w[1] == "FLOCK" && w[4] == strconv.Itoa(pid) && strings.HasSuffix(w[5], ":"+strconv.FormatUint(ino, 10)) {
			return true
		}
	}
	return false
}

// mounted tells whether the mount is in its server's mount namespace; known is
// false where that cannot be seen.
func (h holder) mounted() (is, known bool) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", h.pid))
	if err != nil || len(text) == 0 { // it is ending
		return false, false
	}
	list, err := mountinfo.GetMountsFromReader(bytes.NewReader(text), func(m *mountinfo.Info) (skip, stop bool) {
		same := m.ID == h.mount && m.Major == h.major && m.Minor == h.minor
		return !same, same
	})
	return len(list) > 0, err == nil
}

// program is the name of the server.
func (h holder) program() string {
	comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", h.pid))
	if err != nil {
		return "a program"
	}
	return strings.TrimSpace(string(comm))
}
