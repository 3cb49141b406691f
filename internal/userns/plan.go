package userns

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"unsafe"

	"github.com/moby/sys/user"
	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/internal/errno"
)

// Kind is a way into a user namespace.
type Kind int

// The ways; see the package comment.
const (
	Join Kind = iota + 1
	Map
	Single
)

// String returns the way's word.
func (k Kind) String() string {
	return map[Kind]string{Join: "join", Map: "map", Single: "single"}[k]
}

// Plan says how to get into a user namespace.
type Plan struct {
	Kind Kind
	// Pause is podman's pause process, for Join.
	Pause int
	// Maps are those of the new namespace, for Map and Single.
	Maps Maps
	// Why says in a sentence why there are no subordinate IDs, for Single.
	Why string

	nsenter, newuidmap, newgidmap string
}

// Prepare looks which way there is for the user of this process. It changes
// nothing.
func Prepare() (Plan, error) {
	uid, gid := uint32(os.Geteuid()), uint32(os.Getegid())
	if pid := pause(uid); pid != 0 {
		if p, err := exec.LookPath("nsenter"); err == nil {
			return Plan{Kind: Join, Pause: pid, nsenter: p}, nil
		}
	}
	single := Plan{Kind: Single, Maps: Maps{UIDs: []Range{{0, uid, 1}}, GIDs: []Range{{0, gid, 1}}}}
	p := Plan{Kind: Map}
	var err error
	if p.Maps.UIDs, err = subordinate("/etc/subuid", uid, uid); err != nil {
		return Plan{}, err
	}
	if p.Maps.GIDs, err = subordinate("/etc/subgid", uid, gid); err != nil {
		return Plan{}, err
	}
	if len(p.Maps.UIDs) < 2 || len(p.Maps.GIDs) < 2 {
		single.Why = "the user has no subordinate IDs: an administrator can run `usermod --add-subuids 100000-165535 --add-subgids 100000-165535 USER`"
		return single, nil
	}
	for name, path := range map[string]*string{"newuidmap": &p.newuidmap, "newgidmap": &p.newgidmap} {
		if *path, err = exec.LookPath(name); err != nil {
			single.Why = name + " is not installed: install the package uidmap"
			return single, nil
		}
	}
	return p, nil
}

// pause returns the ID of podman's pause process when it is alive and its user
// namespace is the user's and not the one we are in, else 0.
func pause(uid uint32) int {
	run := os.Getenv("XDG_RUNTIME_DIR")
	if run == "" {
		run = fmt.Sprintf("/run/user/%d", uid)
	}
	b, err := os.ReadFile(filepath.Join(run, "libpod/tmp/pause.pid"))
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || pid <= 0 {
		return 0
	}
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/user", pid))
	if err != nil {
		return 0
	}
	owner, oerr := nsOwner(ns)
	theirs, terr := ns.Stat()
	if cerr := ns.Close(); cerr != nil || oerr != nil || terr != nil || owner != uid {
		return 0
	}
	ours, err := os.Stat("/proc/self/ns/user")
	if err != nil || os.SameFile(ours, theirs) {
		return 0
	}
	return pid
}

// nsOwner returns who created a user namespace (ioctl_ns(2), NS_GET_OWNER_UID).
func nsOwner(ns *os.File) (uint32, error) {
	conn, err := ns.SyscallConn()
	if err != nil {
		return 0, err
	}
	var owner uint32
	var no unix.Errno
	err = conn.Control(func(fd uintptr) {
		_, _, no = unix.Syscall(unix.SYS_IOCTL, fd, unix.NS_GET_OWNER_UID, uintptr(unsafe.Pointer(&owner)))
	})
	if err == nil && no != 0 {
		err = no
	}
	return owner, err
}

// subordinate returns the map 0 → self, 1… → the user's ranges in file.
func subordinate(file string, uid, self uint32) ([]Range, error) {
	name := ""
	if u, err := user.LookupUid(int(uid)); err == nil {
		name = u.Name
	}
	subs, err := user.ParseSubIDFileFilter(file, func(s user.SubID) bool {
		return s.Name != "" && (s.Name == name || s.Name == strconv.FormatUint(uint64(uid), 10))
	})
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("read %s: %w", file, err)
	}
	out := []Range{{0, self, 1}}
	next := uint32(1)
	for _, s := range subs {
		if s.SubID <= 0 || s.Count <= 0 || s.SubID+s.Count > 1<<32-1 || int64(next)+s.Count > 1<<32-1 {
			continue
		}
		out = append(out, Range{next, uint32(s.SubID), uint32(s.Count)})
		next += uint32(s.Count)
	}
	return out, nil
}

// Start starts cmd in the namespace. cmd is prepared as for exec.Cmd.Start;
// its Path, Args and SysProcAttr.Cloneflags are changed. ExtraFiles keep their
// numbers. With an error nothing runs; else the caller owes a Wait or Release.
func (p Plan) Start(ctx context.Context, cmd *exec.Cmd) error {
	if p.Kind == Join {
		args := append([]string{"nsenter", "--preserve-credentials", "-U", "-m", "-t", strconv.Itoa(p.Pause), "--", cmd.Path}, cmd.Args[1:]...)
		cmd.Path, cmd.Args = p.nsenter, args
		if err := cmd.Start(); err != nil {
			return fmt.Errorf("join podman's namespace: %w", err)
		}
		return nil
	}
	return p.startNew(ctx, cmd)
}

// wait is the shell that waits for its maps. $1 is the number of the pipe.
const wait = `fd=$1; shift; eval "read _ <&$fd" || exit 126; eval "exec $fd<&-"; exec "$@"`

func (p Plan) startNew(ctx context.Context, cmd *exec.Cmd) (err error) {
	r, w, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("enter a user namespace: %w", err)
	}
	fd := 3 + len(cmd.ExtraFiles)
	if fd > 9 {
		return errors.Join(fmt.Errorf("enter a user namespace: more than 6 extra files"), r.Close(), w.Close())
	}
	cmd.ExtraFiles = append(cmd.ExtraFiles, r)
	cmd.Args = append([]string{"sh", "-c", wait, "sh", strconv.Itoa(fd), cmd.Path}, cmd.Args[1:]...)
	cmd.Path = "/bin/sh"
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &unix.SysProcAttr{}
	}
	cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWUSER | unix.CLONE_NEWNS
	serr := cmd.Start()
	if err := errors.Join(serr, r.Close()); err != nil {
		return errors.Join(startError(err), w.Close())
	}
	err = p.write(ctx, cmd.Process.Pid)
	if err == nil {
		_, err = w.WriteString("\n")
	}
	if err = errors.Join(err, w.Close()); err != nil {
		return errors.Join(err, cmd.Process.Kill(), waitQuiet(cmd))
	}
	return nil
}

func startError(err error) error {
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EACCES) {
		return fmt.Errorf("the kernel lets ordinary users make no user namespace (see /proc/sys/user/max_user_namespaces, kernel.unprivileged_userns_clone, AppArmor): %w", err)
	}
	if errors.Is(err, unix.ENOENT) {
		return errno.New(errno.ErrNotSupported, "a user namespace is entered through /bin/sh, which is not here: add it to the container's image, or be its root")
	}
	return fmt.Errorf("enter a user namespace: %w", err)
}

func waitQuiet(cmd *exec.Cmd) error {
	var exit *exec.ExitError
	if err := cmd.Wait(); err != nil && !errors.As(err, &exit) {
		return err
	}
	return nil
}

// write writes the maps of process pid.
func (p Plan) write(ctx context.Context, pid int) error {
	if p.Kind == Map {
		if err := helper(ctx, p.newuidmap, pid, p.Maps.UIDs); err != nil {
			return err
		}
		return helper(ctx, p.newgidmap, pid, p.Maps.GIDs)
	}
	proc := fmt.Sprintf("/proc/%d/", pid)
	for _, f := range [...]struct{ name, text string }{
		{"uid_map", text(p.Maps.UIDs)}, {"setgroups", "deny"}, {"gid_map", text(p.Maps.GIDs)},
	} {
		if err := os.WriteFile(proc+f.name, []byte(f.text), 0); err != nil {
			return fmt.Errorf("map the user's ID: %w", err)
		}
	}
	return nil
}

func text(rs []Range) string {
	var b strings.Builder
	for _, r := range rs {
		fmt.Fprintf(&b, "%d %d %d\n", r.Inside, r.Outside, r.Size)
	}
	return b.String()
}

func helper(ctx context.Context, path string, pid int, rs []Range) error {
	args := []string{strconv.Itoa(pid)}
	args = append(args, strings.Fields(text(rs))...)
	out, err := exec.CommandContext(ctx, path, args...).CombinedOutput()
	name := filepath.Base(path)
	switch said := strings.TrimSpace(string(out)); {
	case err == nil:
		return nil
	case strings.Contains(said, "not permitted"):
		// The program has its set-user-ID bit, but not the capability for it.
		return errno.New(errno.ErrForbidden, "the subordinate IDs of /etc/subuid and /etc/subgid cannot be had here (%s): in a container, start that with `--cap-add SYS_ADMIN`, or take the user's lines out of the two files to work with one ID", said)
	default:
		return fmt.Errorf("%s: %s: %w", name, said, err)
	}
}
