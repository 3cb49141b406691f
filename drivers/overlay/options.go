//go:build linux

package overlay

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"

	"github.com/plyfs/plyfs/drivers"
	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/mounts"
)

// options are the driver's options, parsed.
type options struct {
	mountopt      string // as given; part of the probe caches' names
	flags         uintptr
	data          []string
	program       string
	ignoreChown   bool
	forceMask     os.FileMode
	hasForceMask  bool
	skipMountHome bool
	stores        []string
	noIDMap       bool // nothing is mapped at the mount
	limits        drivers.Limits
}

// noIDMapVariable, when it is "yes" in the environment, has mapped copies of
// layers made in place of mounts with mapped owners, as the peers have it.
const noIDMapVariable = "_CONTAINERS_OVERLAY_DISABLE_IDMAP"

// knownOptions is for the error about an unknown one.
const knownOptions = "force_mask, ignore_chown_errors, imagestore, inodes, mount_program, mountopt, size, skip_mount_home"

func parseOptions(list []drivers.Option) (options, error) {
	o := options{noIDMap: os.Getenv(noIDMapVariable) == "yes"}
	for _, opt := range list {
		if err := o.set(opt.Key, opt.Value); err != nil {
			return options{}, err
		}
	}
	if o.hasForceMask && o.program == "" {
		return options{}, errno.New(errno.ErrBadValue, "overlay: force_mask works only with mount_program: name one, or leave force_mask out")
	}
	return o, nil
}

func (o *options) set(key, value string) error {
	var err error
	switch key {
	case "mountopt":
		o.mountopt = value
		o.flags, o.data = mounts.SplitOptions([]string{value})
		return checkMountopt(o.data)
	case "mount_program":
		o.program = value
		return checkProgram(value)
	case "imagestore", "additionalimagestore":
		return o.addStores(value)
	case "ignore_chown_errors":
		o.ignoreChown, err = parseBool(key, value)
		return err
	case "skip_mount_home":
		o.skipMountHome, err = parseBool(key, value)
		return err
	case "override_kernel_check":
		return nil
	case "force_mask":
		return o.setForceMask(value)
	case "use_composefs":
		on, err := parseBool(key, value)
		if err == nil && on {
			return errno.New(errno.ErrNotSupported, "overlay: use_composefs is not supported: leave it out")
		}
		return err
	case "size", "inodes":
		n, err := drivers.ParseSize(value)
		if err != nil {
			return fmt.Errorf("overlay: option %s: %w", key, err)
		}
		if key == "size" {
			o.limits.Bytes = n
		} else {
			o.limits.Inodes = n
		}
		return nil
	}
	return errno.New(errno.ErrBadValue, "overlay: unknown option %q: known are %s", key, knownOptions)
}

// checkMountopt refuses what would take the layers out of the driver's hand.
func checkMountopt(data []string) error {
	for _, d := range data {
		key, _, _ := strings.Cut(d, "=")
		switch key {
		case "lowerdir", "lowerdir+", "upperdir", "workdir", "datadir", "datadir+", "source":
			return errno.New(errno.ErrBadValue, "overlay: mountopt may not hold %s: the driver sets it", key)
		}
	}
	return nil
}

func checkProgram(path string) error {
	st, err := os.Stat(path)
	if err != nil {
		return errno.New(errno.ErrBadValue, "overlay: mount_program: %w: install it or correct its path", err)
	}
	if !st.Mode().IsRegular() || st.Mode()&0o111 == 0 {
		return errno.New(errno.ErrBadValue, "overlay: mount_program %s is not an executable file", path)
	}
	return nil
}

func (o *options) addStores(value string) error {
	for dir := range strings.SplitSeq(value, ",") {
		st, err := os.Stat(dir)
		if err != nil {
			return errno.New(errno.ErrBadValue, "overlay: imagestore: %w", err)
		}
		if !st.IsDir() {
			return errno.New(errno.ErrBadValue, "overlay: imagestore %s is not a directory", dir)
		}
		o.stores = append(o.stores, dir)
	}
	return nil
}

func (o *options) setForceMask(value string) error {
	switch value {
	case "shared":
		o.forceMask = 0o755
	case "private":
		o.forceMask = 0o700
	default:
		n, err := strconv.ParseUint(value, 8, 32)
		if err != nil || n > 0o7777 {
			return errno.New(errno.ErrBadValue, "overlay: force_mask is %q: say shared, private or an octal mode", value)
		}
		o.forceMask = os.FileMode(n & 0o777)
	}
	o.hasForceMask = true
	return nil
}

func parseBool(key, value string) (bool, error) {
	v, err := strconv.ParseBool(value)
	if err != nil {
		return false, errno.New(errno.ErrBadValue, "overlay: option %s is %q: say true or false", key, value)
	}
	return v, nil
}

// findProgram looks for a mount program that is not configured; "" if none.
func findProgram() string {
	for _, name := range []string{"fuse-overlay", "fuse-overlayfs"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	return ""
}
