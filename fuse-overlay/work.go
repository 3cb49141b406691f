package fuseoverlay

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/plyfs/plyfs/internal/safefs"
)

// work is the mount's work directory, and what was found out there about the
// filesystem of the upper.
type work struct {
	// top is the directory given; stage is top/work, index top/index (nil where
	// attributes cannot be kept).
	top, stage, index *safefs.Dir
	// upper is the upper directory on the mount of top, a clone; nil where there
	// is none: see bare.go.
	upper  *safefs.Dir
	claims claims
	signed bool // see holder

	// prefix of the marks' attributes; "": the filesystem takes none.
	prefix string
	// dotWh: whiteouts are `.wh.` files, since no device 0:0 may be made.
	dotWh bool
	// attrWh: whiteouts are empty files with an attribute, since neither is to be
	// had.
	attrWh bool
	// unnamed: files without a name can be made. swap and cover: renameat2
	// knows EXCHANGE and WHITEOUT.
	unnamed, swap, cover bool
	// ordered: what is written is on the disk no later than names made after it;
	// see settle.
	ordered bool
	// ext4: it is on ext4 (or its forerunners, which cannot reserve room).
	// fleeting: on a filesystem in memory; nothing is settled there.
	ext4, fleeting bool
	dev            uint64 // its filesystem's

	// loans: nil where the server may do what modes forbid it.
	loans *lending

	serial  atomic.Uint64
	sharing sync.Mutex   // a leaf, over what makes a new sharedWh
	piping  atomic.Int32 // how many copies are made by two; see pipes
}

// lack is something that the upper's filesystem cannot do, or a user may not.
type lack struct {
	is    bool
	asked bool // whiteouts as files were asked for
	say   string
}

// lacks are what a mount does without, so that whoever mounts knows it before
// the first write.
func (w *work) lacks() []lack {
	return []lack{
		{w.prefix == "", false, "no extended attributes can be set there: copies of files with several names are files of their own, and inode numbers change when files are copied up"},
		{w.dotWh, true, "no device 0:0 can be made there: whiteouts are .wh. files, and lower files with names of over 251 bytes cannot be removed"},
		{w.attrWh, false, "neither devices 0:0 nor names that begin with .wh. can be made there: whiteouts are empty files with an attribute, which kernels before 6.7 do not know"},
		{!w.unnamed, false, "it has no files without a name: O_TMPFILE is refused, and hard links of lower layers are split by copies"},
		{!w.swap, false, "it cannot exchange two names: directories that lower layers have cannot be removed"},
	}
}

const (
	stagePrefix  = "#"
	sharedWh     = "#whiteout"
	stageName    = "work"
	indexName    = "index"
	incompatName = "incompat" // the kernel's, after a volatile mount
)

// openWork opens and sweeps the work directory dir, beside upper.
func openWork(c *MountConfig, upper, dir string, clones *dropping) (_ *work, err error) {
	w := &work{}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.close())
		}
	}()
	if w.top, err = safefs.OpenRoot(dir); err != nil {
		return nil, fmt.Errorf("workdir: %w", err)
	}
	if err := w.claim(dir, upper); err != nil {
		return nil, err
	}
	if err := w.onClone(dir, upper, clones); err != nil {
		return nil, fmt.Errorf("workdir %s cannot be used: %w", dir, err)
	}
	if w.stage, err = subdir(w.top, stageName); err != nil {
		return nil, fmt.Errorf("workdir %s cannot be used: %w", dir, err)
	}
	if err := w.claims.mounted(w.stage); err != nil {
		return nil, fmt.Errorf("workdir %s cannot be used: %w", dir, err)
	}
	if err := w.sweep(c); err != nil {
		return nil, fmt.Errorf("clean workdir %s: %w", dir, err)
	}
	w.learn()
	if err := w.probe(c.Formats, c.FileWhiteouts); err != nil {
		return nil, fmt.Errorf("workdir %s cannot be used: %w", dir, err)
	}
	if w.prefix != "" && w.unnamed {
		if w.index, err = subdir(w.top, indexName); err != nil {
			return nil, fmt.Errorf("workdir %s cannot be used: %w", dir, err)
		}
	}
	return w, nil
}

// onClone opens top again, and upper, on a clone of their mount.
func (w *work) onClone(dir, upper string, clones *dropping) error {
	u, top, err := together(upper, dir, clones)
	if err != nil || u == nil {
		return err
	}
	old := w.top
	w.upper, w.top = u, top
	return old.Close()
}

// subdir opens a directory of the overlay's own, made if need be. Nothing in it
// inherits what workdir hands down, or an earlier owner set: default ACLs, the
// set-group-ID bit.
func subdir(d *safefs.Dir, name string) (_ *safefs.Dir, err error) {
	if err := d.Mkdir(name, 0o700); err != nil && !errors.Is(err, syscall.EEXIST) {
		return nil, err
	}
	// The kernel's overlay leaves it with mode 0, in which an ordinary user
	// finds nothing.
	err = d.Chmod(name, 0o700)
	for _, acl := range []string{defaultACL, accessACL} {
		if aerr := d.Removexattr(name, acl); aerr != nil && !noXattrs(aerr) {
			err = errors.Join(err, aerr)
		}
	}
	if err != nil {
		return nil, err
	}
	return d.OpenDir(name)
}

// sweep removes what an earlier mount left staged.
func (w *work) sweep(c *MountConfig) error {
	var names []string
	err := w.stage.ReadDir(func(e safefs.Entry) error {
		if e.Name == incompatName {
			c.Log.Warnf("workdir %s was used by a volatile mount of the kernel: after a crash since then the upper may have lost data", c.Work)
			return nil
		}
		names = append(names, e.Name)
		return nil
	})
	for _, name := range names {
		err = errors.Join(err, removeTree(w.stage, name))
	}
	return err
}

// sweepIndex removes the index entries of files whose last name was removed
// just before a mount ended otherwise than it should, and what the kernel, which
// stages copies for the index there, left of one.
func (w *work) sweepIndex() error {
	if w.index == nil {
		return nil
	}
	var dead, staged []string
	err := w.index.ReadDir(func(e safefs.Entry) error {
		if strings.HasPrefix(e.Name, stagePrefix) { // entries are called by hexadecimal digits
			staged = append(staged, e.Name)
			return nil
		}
		st, err := w.index.Stat(e.Name)
		if err != nil || st.IsDir() || kindOf(&st) == whiteout || st.Nlink > 1 {
			return err
		}
		v, err := w.index.Getxattr(e.Name, w.prefix+"nlink")
		if err != nil {
			if noXattrs(err) {
				err = nil // the kernel's, of a file that it counts otherwise
			}
			return err
		}
		// Relative to the lower file its count is not known here.
		if _, some := parseLinks(string(v), st.Nlink, 0); !some && len(v) > 0 && v[0] == 'U' {
			dead = append(dead, e.Name)
		}
		return nil
	})
	for _, name := range dead {
		err = errors.Join(err, w.index.Unlink(name))
	}
	for _, name := range staged {
		err = errors.Join(err, removeTree(w.index, name))
	}
	return err
}

// name returns a new staging name.
func (w *work) name() string { return stagePrefix + strconv.FormatUint(w.serial.Add(1), 16) }

func (w *work) sweepNames() error {
	var names []string
	err := w.stage.ReadDir(func(e safefs.Entry) error {
		if strings.HasPrefix(e.Name, stagePrefix) {
			names = append(names, e.Name)
		}
		return nil
	})
	for _, name := range names {
		err = errors.Join(err, removeTree(w.stage, name))
	}
	return err
}

func (w *work) close() error {
	var err error
	if w.signed {
		_ = w.stage.Unlink(holderName) // swept at the next mount, or workdir has been removed
	}
	for _, d := range []*safefs.Dir{w.index, w.stage, w.top, w.upper} {
		if d != nil {
			err = errors.Join(err, d.Close())
		}
	}
	w.claims.release()
	return err
}
