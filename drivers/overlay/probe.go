//go:build linux

package overlay

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/moby/sys/userns"
	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/internal/idmap"
	"github.com/plyfs/plyfs/internal/mounts"
)

// probePrefix begins the names of the probes' folders in the home.
const probePrefix = "plyfs-probe"

// probes is what was found out at construction.
type probes struct {
	backing    string // name of the filesystem as the peers print it
	dtype      bool   // readdir tells types
	nativeDiff bool   // an upper alone tells what changed
	metacopy   bool   // mounts here copy up metadata without data
	volatile   bool   // mounts take the option volatile
	idmapped   bool   // lowers may be mounts with mapped owners
}

// useProgram sets what holds with a mount program: its uppers are compared.
func (p *probes) useProgram(home string) {
	p.backing, p.dtype = backingName(home), hasDType(home)
	p.nativeDiff, p.metacopy, p.volatile = false, false, true
}

// runProbes fills d.probe, from the run root's cache where it is whole. The
// error is the kernel's reason for not mounting overlays here.
func (d *Driver) runProbes() error {
	d.probe.backing, d.probe.dtype = backingName(d.home), hasDType(d.home)
	cache := filepath.Join(d.cfg.RunRoot, homeName)
	key := "(" + d.opts.mountopt + ")"
	ok, knowsOK := cached(cache, "overlay")
	native, knowsNative := cached(cache, "native-diff"+key)
	metacopy, knowsMeta := cached(cache, "metacopy"+key)
	volatile, knowsVolatile := cached(cache, "volatile")
	idmapped, knowsIDMapped := cached(cache, "idmapped-lower-dir")
	if knowsOK && ok && knowsNative && knowsMeta && knowsVolatile && knowsIDMapped {
		d.probe.nativeDiff, d.probe.metacopy, d.probe.volatile, d.probe.idmapped = native, metacopy, volatile, idmapped
		return nil
	}
	if err := d.probeKernel(); err != nil {
		return err
	}
	d.remember(cache, "overlay", true)
	d.remember(cache, "native-diff"+key, d.probe.nativeDiff)
	d.remember(cache, "metacopy"+key, d.probe.metacopy)
	d.remember(cache, "volatile", d.probe.volatile)
	d.remember(cache, "idmapped-lower-dir", d.probe.idmapped)
	return nil
}

// cacheFile keeps names with a slash (a mountopt with a path) in one component.
func cacheFile(feature string, value bool) string {
	return strings.ReplaceAll(fmt.Sprintf("%s-%t", feature, value), "/", "%2F")
}

func cached(dir, feature string) (value, known bool) {
	for _, v := range []bool{true, false} {
		if _, err := os.Lstat(filepath.Join(dir, cacheFile(feature, v))); err == nil {
			return v, true
		}
	}
	return false, false
}

// remember caches a result; that it cannot is no failure: it is probed again.
func (d *Driver) remember(dir, feature string, value bool) {
	err := os.MkdirAll(dir, 0o700)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, cacheFile(feature, value)), nil, 0o644)
	}
	if err != nil {
		d.log.WithError(err).Debug("overlay: result of a probe not kept")
	}
}

// probeKernel mounts overlays in the home: with the driver's options, volatile,
// and with mapped owners.
func (d *Driver) probeKernel() (err error) {
	d.sweepProbes()
	dir, err := os.MkdirTemp(d.home, probePrefix)
	if err != nil {
		return err
	}
	defer func() {
		if rerr := os.RemoveAll(dir); rerr != nil {
			d.log.WithError(rerr).Debug("overlay: folder of a probe not removed")
		}
	}()
	b := bench{dir: dir, opaque: "trusted.overlay.opaque", metacopy: "trusted.overlay.metacopy"}
	if userns.RunningInUserNS() {
		b = bench{dir: dir, opaque: "user.overlay.opaque", metacopy: "user.overlay.metacopy", extra: []string{"userxattr"}}
	}
	if err := b.build(); err != nil {
		return err
	}
	plan := b.plan("up", d.opts.flags, d.opts.data)
	mountErr := withMount(plan, func(merged string) error {
		var err error
		d.probe.nativeDiff, d.probe.metacopy, err = b.look(merged)
		return err
	})
	if mountErr != nil {
		// Options that the kernel refuses are the user's, and fail at a mount
		// that needs them; what the kernel can do is asked without them.
		d.probe.nativeDiff, d.probe.metacopy = false, false
		if err := withMount(b.plan("plain", 0, nil), func(string) error { return nil }); err != nil {
			return err
		}
	}
	d.probe.volatile = withMount(b.plan("vol", 0, []string{"volatile"}), func(string) error { return nil }) == nil
	d.probe.idmapped = withMount(b.mappedPlan(), b.lookMapped) == nil
	return nil
}

// sweepProbes removes what killed probes left, once they are surely over.
func (d *Driver) sweepProbes() {
	old, err := filepath.Glob(filepath.Join(d.home, probePrefix+"*"))
	if err != nil {
		return
	}
	for _, dir := range old {
		st, err := os.Lstat(dir)
		if err != nil || time.Since(st.ModTime()) < time.Minute {
			continue
		}
		_ = mounts.Unmount(context.Background(), filepath.Join(dir, "merged"), true)
		if err := os.RemoveAll(dir); err != nil {
			d.log.WithError(err).Debug("overlay: folder of an earlier probe not removed")
		}
	}
}

// withMount mounts p, runs fn on it and unmounts it.
func withMount(p mounts.Plan, fn func(merged string) error) (err error) {
	if err := mounts.Do(context.Background(), p); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, mounts.Unmount(context.Background(), p.Target, true)) }()
	return fn(p.Target)
}

// bench is a pair of layers that shows how this kernel marks its uppers.
type bench struct {
	dir              string
	opaque, metacopy string // names of xattrs
	extra            []string
}

func (b bench) path(name string) string { return filepath.Join(b.dir, name) }

func (b bench) build() error {
	for _, name := range []string{
		"merged", "mapped", "up", "upw", "vol", "volw", "plain", "plainw", "l1", "l1/d", "l2", "l2/d", "l2/plain",
	} {
		if err := os.Mkdir(b.path(name), 0o755); err != nil {
			return err
		}
	}
	if err := unix.Setxattr(b.path("l2/d"), b.opaque, []byte("y"), 0); err != nil {
		return fmt.Errorf("setting %s: %w", b.opaque, err)
	}
	for _, name := range []string{"l2/d/f", "l2/meta"} {
		if err := os.WriteFile(b.path(name), []byte("data"), 0o600); err != nil {
			return err
		}
	}
	return nil
}

func (b bench) plan(upper string, flags uintptr, data []string) mounts.Plan {
	return mounts.Plan{
		Target: b.path("merged"), Type: "overlay", Flags: flags,
		Lowers: []string{b.path("l2"), b.path("l1")}, Upper: b.path(upper), Work: b.path(upper + "w"),
		Options: append(append([]string(nil), b.extra...), data...),
	}
}

// mappedPlan is plan with lowers whose owners are mapped.
func (b bench) mappedPlan() mounts.Plan {
	p := b.plan("plain", 0, nil)
	one := []idmap.Range{{ContainerID: 0, HostID: probedID, Size: 1}}
	p.Mapped = []mounts.Mapping{{From: b.dir, At: b.path("mapped"), Maps: idmap.Maps{UIDs: one, GIDs: one}}}
	for i, dir := range p.Lowers {
		p.Lowers[i] = filepath.Join(b.path("mapped"), filepath.Base(dir))
	}
	return p
}

// probedID is a host ID that no file of a probe has.
const probedID = 4242

// lookMapped fails unless the mapped owner shows.
func (b bench) lookMapped(merged string) error {
	var st unix.Stat_t
	if err := unix.Lstat(filepath.Join(merged, "d"), &st); err != nil {
		return err
	}
	if st.Uid != probedID || st.Gid != probedID {
		return fmt.Errorf("a mapped file belongs to %d:%d", st.Uid, st.Gid)
	}
	return nil
}

// look writes through the mount and reads the upper: native is false when an
// upper's directory repeats the opaque mark of a lower one, when directories
// are renamed by redirect, or when data stays below.
func (b bench) look(merged string) (native, metacopy bool, err error) {
	if err := os.WriteFile(filepath.Join(merged, "d", "f"), []byte("more"), 0o600); err != nil {
		return false, false, err
	}
	if err := os.Chmod(filepath.Join(merged, "meta"), 0o640); err != nil {
		return false, false, err
	}
	metacopy, err = hasXattr(b.path("up/meta"), b.metacopy)
	if err != nil {
		return false, false, err
	}
	repeats, err := hasXattr(b.path("up/d"), b.opaque)
	if err != nil {
		return false, false, err
	}
	redirects := unix.Rename(filepath.Join(merged, "plain"), filepath.Join(merged, "moved")) == nil
	return !metacopy && !repeats && !redirects, metacopy, nil
}

func hasXattr(path, name string) (bool, error) {
	buf := make([]byte, 256)
	_, err := unix.Lgetxattr(path, name, buf)
	if errors.Is(err, unix.ENODATA) {
		return false, nil
	}
	return err == nil, err
}

// hasDType tells whether the folder's filesystem says entries' types in
// readdir.
func hasDType(dir string) bool {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer func() { _ = unix.Close(fd) }()
	buf := make([]byte, 8192)
	n, err := unix.Getdents(fd, buf)
	if err != nil {
		return false
	}
	// struct linux_dirent64: u64 ino, s64 off, u16 reclen, u8 type, name
	for buf = buf[:n]; len(buf) > 19; {
		reclen := int(buf[16]) | int(buf[17])<<8
		name := buf[19:]
		if i := bytes.IndexByte(name, 0); i >= 0 {
			name = name[:i]
		}
		if s := string(name); s != "." && s != ".." {
			return buf[18] != unix.DT_UNKNOWN
		}
		if reclen < 19 || reclen > len(buf) {
			return false
		}
		buf = buf[reclen:]
	}
	return true
}

// backingName names the home's filesystem as the peers do.
func backingName(dir string) string {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return "<unknown>"
	}
	names := map[uint32]string{
		unix.EXT4_SUPER_MAGIC: "extfs", unix.XFS_SUPER_MAGIC: "xfs", unix.BTRFS_SUPER_MAGIC: "btrfs",
		unix.TMPFS_MAGIC: "tmpfs", unix.OVERLAYFS_SUPER_MAGIC: "overlayfs", 0x2fc12fc1: "zfs",
		unix.F2FS_SUPER_MAGIC: "f2fs", unix.NFS_SUPER_MAGIC: "nfs", unix.FUSE_SUPER_MAGIC: "fuse",
		unix.SQUASHFS_MAGIC: "squashfs", unix.RAMFS_MAGIC: "ramfs", unix.ECRYPTFS_SUPER_MAGIC: "ecryptfs",
	}
	if name, ok := names[uint32(st.Type)]; ok {
		return name
	}
	return "<unknown>"
}
