//go:build linux

package overlay

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/moby/sys/userns"
	"github.com/sirupsen/logrus"

	"github.com/plyfs/plyfs/drivers"
	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/mounts"
	"github.com/plyfs/plyfs/internal/whiteout"
)

// MaxLowers is the deepest chain of parents that a layer may have.
const MaxLowers = 500

const (
	homeName   = "overlay"
	linksName  = "l"
	markerName = ".has-mount-program"
)

// Driver implements drivers.Driver, Differ, Styler, Shutdowner, Shifter and
// Limiter. It is immutable.
type Driver struct {
	cfg   drivers.Config
	opts  options
	home  string   // <root>/overlay
	homes []string // home, then those of the read-only stores
	probe probes
	log   *logrus.Entry
}

var (
	_ drivers.Driver     = (*Driver)(nil)
	_ drivers.Differ     = (*Driver)(nil)
	_ drivers.Styler     = (*Driver)(nil)
	_ drivers.Shutdowner = (*Driver)(nil)
	_ drivers.Shifter    = (*Driver)(nil)
	_ drivers.Limiter    = (*Driver)(nil)
)

// New makes the driver: it parses the options (ErrBadValue names a wrong one),
// makes the home when the root can be written, and probes what this kernel,
// filesystem and user can do, unless the run root knows. ErrNotSupported, with
// what to do, when neither the kernel nor a mount program can mount here.
func New(cfg drivers.Config) (drivers.Driver, error) {
	opts, err := parseOptions(cfg.Options)
	if err != nil {
		return nil, err
	}
	d := &Driver{cfg: cfg, opts: opts, home: filepath.Join(cfg.Root, homeName), log: cfg.Log}
	if d.log == nil {
		quiet := logrus.New()
		quiet.SetOutput(io.Discard)
		d.log = logrus.NewEntry(quiet)
	}
	d.homes = []string{d.home}
	for _, s := range append(append([]string(nil), cfg.ImageStores...), opts.stores...) {
		d.homes = append(d.homes, filepath.Join(s, homeName))
	}
	if err := d.makeHome(); err != nil {
		return nil, err
	}
	if err := d.chooseMounter(); err != nil {
		return nil, err
	}
	if d.opts.limits != (drivers.Limits{}) {
		if _, err := d.holder(); err != nil {
			return nil, err
		}
	}
	return d, nil
}

// makeHome makes the home's folders; a root that cannot be written is read.
func (d *Driver) makeHome() error {
	err := os.MkdirAll(d.home, 0o700)
	if err == nil {
		err = os.Mkdir(filepath.Join(d.home, linksName), 0o755)
	}
	if err == nil || errors.Is(err, fs.ErrExist) || cannotWrite(err) {
		return nil
	}
	return fmt.Errorf("overlay: making the home: %w", err)
}

func cannotWrite(err error) bool {
	return errors.Is(err, fs.ErrPermission) || errno.Of(err) == errno.ErrReadOnly.Errno()
}

// chooseMounter settles whether a program or the kernel mounts, and records
// it for the peers.
func (d *Driver) chooseMounter() error {
	marker := filepath.Join(d.home, markerName)
	old, err := os.ReadFile(marker)
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !cannotWrite(err) {
		return fmt.Errorf("overlay: %w", err)
	}
	hadProgram := string(bytes.TrimSpace(old)) == "true"
	if d.opts.program == "" {
		if err := d.withoutProgram(hadProgram); err != nil {
			return err
		}
	}
	if d.opts.program != "" {
		d.probe.useProgram(d.home)
	}
	want := strconv.FormatBool(d.opts.program != "")
	if string(old) == want || string(old) != "" && d.opts.program == "" {
		return nil
	}
	if err := writeFile(marker, want, 0o600); err != nil && !cannotWrite(err) {
		return fmt.Errorf("overlay: %w", err)
	}
	return nil
}

// withoutProgram lets the kernel mount or, where it cannot or the home's
// layers were written through a program, a program that is installed.
func (d *Driver) withoutProgram(hadProgram bool) error {
	if hadProgram {
		if d.opts.program = findProgram(); d.opts.program == "" {
			return errno.New(errno.ErrNotSupported, "overlay: the layers in %s were written through a mount program: install fuse-overlay or fuse-overlayfs, or name one with mount_program", d.home)
		}
		return nil
	}
	reason := d.runProbes()
	if reason == nil {
		return nil
	}
	if d.opts.program = findProgram(); d.opts.program == "" {
		return errno.New(errno.ErrNotSupported, "overlay: the kernel cannot mount an overlay in %s: install fuse-overlay or fuse-overlayfs, or use the driver vfs: %w", d.home, reason)
	}
	return nil
}

// Name implements drivers.Driver.
func (d *Driver) Name() string { return homeName }

// Style implements drivers.Styler.
func (d *Driver) Style() whiteout.Style {
	switch {
	case d.opts.program != "":
		return whiteout.Files
	case userns.RunningInUserNS():
		return whiteout.User
	}
	return whiteout.Trusted
}

// Shift implements drivers.Shifter.
func (d *Driver) Shift() drivers.Shift {
	switch {
	case d.opts.noIDMap:
		return drivers.NoShift
	case d.opts.program != "":
		return drivers.ShiftMount
	case d.probe.idmapped:
		return drivers.ShiftLowers
	}
	return drivers.NoShift
}

// Status implements drivers.Driver: the four lines that the peers print.
func (d *Driver) Status() [][2]string {
	return [][2]string{
		{"Backing Filesystem", d.probe.backing},
		{"Supports d_type", strconv.FormatBool(d.probe.dtype)},
		{"Native Overlay Diff", strconv.FormatBool(d.probe.nativeDiff)},
		{"Using metacopy", strconv.FormatBool(d.probe.metacopy)},
	}
}

// List implements drivers.Driver: every directory that a layer could be,
// whole or not.
func (d *Driver) List() ([]string, error) {
	entries, err := os.ReadDir(d.home)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("overlay: listing layers: %w", err)
	}
	var ids []string
	for _, e := range entries {
		if e.IsDir() && !reserved(e.Name()) {
			ids = append(ids, e.Name())
		}
	}
	return ids, nil
}

// reserved tells which entries of the home are no layers: ours and the peers'
// probes and folders.
func reserved(name string) bool {
	switch name {
	case linksName, "tempdirs", "staging":
		return true
	}
	for _, p := range []string{".", probePrefix, "compat", "metacopy-check", "opaque-bug-check"} {
		if rest, ok := strings.CutPrefix(name, p); ok && (p == "." || p == probePrefix || isDigits(rest)) {
			return true
		}
	}
	return false
}

func isDigits(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}

// Shutdown implements drivers.Shutdowner: it takes away the mount of the home
// on itself. ErrInUse when a layer is still mounted below it.
func (d *Driver) Shutdown(context.Context) error {
	return mounts.UnbindPrivate(d.home)
}
