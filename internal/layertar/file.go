package layertar

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"syscall"

	"github.com/plyfs/plyfs/internal/unix"

	"github.com/plyfs/plyfs/internal/idmap"
	"github.com/plyfs/plyfs/internal/safefs"
	"github.com/plyfs/plyfs/internal/whiteout"
)

const (
	aclAccess  = idmap.AccessACL
	aclDefault = idmap.DefaultACL
)

// creator is what the kernel gives a new file by itself.
type creator struct {
	uid, gid int
	umask    uint32 // 0777 when it is not known
}

func whoCreates() creator {
	c := creator{os.Geteuid(), os.Getegid(), 0o777}
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return c
	}
	for line := range strings.Lines(string(text)) {
		if v, ok := strings.CutPrefix(line, "Umask:"); ok {
			if n, err := strconv.ParseUint(strings.TrimSpace(v), 8, 32); err == nil {
				c.umask = uint32(n)
			}
		}
	}
	return c
}

// openDir is a directory that is open, with what new files in it inherit.
type openDir struct {
	*safefs.Dir
	// acls is set when it has a default ACL, which new files inherit and
	// which no stream means them to have.
	acls bool
	// group tells whether new files have our group (or the directory's).
	group inherited
}

type inherited uint8

const (
	notSeen inherited = iota
	ours
	another
)

func newOpenDir(d *safefs.Dir) *openDir {
	_, err := d.Getxattr(".", aclDefault)
	return &openDir{Dir: d, acls: err == nil}
}

// mkdir makes a directory that inherits no ACL.
func (d *openDir) mkdir(name string, perm uint32) error {
	if err := d.Mkdir(name, perm); err != nil || !d.acls {
		return err
	}
	return errors.Join(unlessMissing(d.Removexattr(name, aclAccess)), unlessMissing(d.Removexattr(name, aclDefault)))
}

// isOurs tells whether a new file of d has our owner and group, of which f is
// one: set-group-ID and the mount's options decide, so one is looked at.
func (d *openDir) isOurs(f *safefs.File, us creator) bool {
	if d.group == notSeen {
		d.group = another
		if st, err := f.Stat(); err == nil && int(st.UID) == us.uid && int(st.GID) == us.gid {
			d.group = ours
		}
	}
	return d.group == ours
}

// file extracts a regular file: it is made here and written by the pipe.
func (a *applier) file(h *header, o *op) error {
	d, err := a.parent(h, o.dir, true)
	if err != nil {
		return err
	}
	var f *safefs.File
	err = a.replacing(h, d.Dir, o, func() (err error) {
		f, err = d.Create(o.base, o.perm&0o777)
		return err
	})
	if err != nil {
		return err
	}
	end, err := a.fileEnd(h, o, d, f)
	if err != nil {
		return errors.Join(err, f.Close())
	}
	out := a.out.start(f, h, end)
	if h.isSparse {
		err = a.sparseData(out, h)
		h.sparse = nil // done with, before the file is
	} else {
		err = a.data(out, 0, h.stored, true)
	}
	a.out.finish(out)
	return err
}

// data hands n bytes on, which belong at off.
func (a *applier) data(out *outFile, off, n int64, recorded bool) error {
	for n > 0 {
		d, err := a.in.piece(n)
		if err != nil {
			return err
		}
		a.out.data(out, d, off, recorded)
		off += int64(len(d.b))
		n -= int64(len(d.b))
	}
	return nil
}

// sparseData writes the extents where they belong; the rest stays holes. A
// file does not tell how its holes were written, so the record has it all.
func (a *applier) sparseData(out *outFile, h *header) error {
	for _, e := range h.sparse {
		if err := a.data(out, e.off, e.len, false); err != nil {
			return err
		}
	}
	return nil
}

// fileEnd is what is to be done to a file when its content is there: owner,
// attributes, mode and times, and of these no more than what creating it has
// not done already.
type fileEnd struct {
	a            *applier
	h            *header
	uid, gid     int
	perm         uint32
	note         []byte // with OverrideStat
	acls         bool   // it has inherited some
	chown, chmod bool
}

func (a *applier) fileEnd(h *header, o *op, d *openDir, f *safefs.File) (e *fileEnd, err error) {
	e = &fileEnd{a: a, h: h, perm: o.perm, acls: d.acls}
	e.chmod = o.perm&(a.us.umask|0o7000) != 0 || d.acls || len(h.xattrs) > 0
	if a.o.OverrideStat {
		e.note, e.perm = overrideValue(o, "file"), o.noted()
		return e, nil
	}
	if e.uid, e.gid, err = a.hostOwner(o); err != nil {
		return nil, err
	}
	e.chown = e.uid != a.us.uid || e.gid != a.us.gid || !d.isOurs(f, a.us)
	return e, nil
}

func (e *fileEnd) do(f *safefs.File) error {
	if e.h.isSparse {
		if err := f.Truncate(e.h.size); err != nil {
			return err
		}
	}
	perm, err := e.owner(f)
	if err != nil {
		return err
	}
	if e.acls {
		if err := unlessMissing(f.Removexattr(aclAccess)); err != nil {
			return err
		}
	}
	if err := e.a.xattrs(e.h, false, f.Setxattr); err != nil {
		return err
	}
	if e.chmod {
		if err := f.Chmod(perm); err != nil {
			return err
		}
	}
	err = f.Utimens(e.h.accessed(), e.h.mtime)
	if err == nil && e.a.o.SyncFiles {
		err = f.Sync()
	}
	return err
}

// owner is applier.owner for a file.
func (e *fileEnd) owner(f *safefs.File) (perm uint32, err error) {
	if e.note != nil {
		return e.perm, f.Setxattr(whiteout.OverrideStat, e.note)
	}
	if e.chown {
		return e.a.chowned(e.perm, f.Chown(e.uid, e.gid))
	}
	return e.perm, nil
}

// unlessMissing forgives the removal of an attribute that is not there.
func unlessMissing(err error) error {
	if errors.Is(err, unix.ENODATA) || errors.Is(err, syscall.EOPNOTSUPP) {
		return nil
	}
	return err
}
