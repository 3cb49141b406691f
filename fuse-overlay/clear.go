package fuseoverlay

import (
	"errors"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/internal/safefs"
)

// removeTree removes name in d, with all that is below. How deep that is, its
// maker chose: so directories that are not empty are moved into d, and emptied
// there, and one descriptor is enough. What a kill leaves has names in d that are
// swept where staged ones are.
func removeTree(d *safefs.Dir, name string) error {
	full, err := removeEmpty(d, name)
	if !full {
		return err
	}
	return removeFull(d, name)
}

// removeFull is removeTree of a directory, in which there is something.
func removeFull(d *safefs.Dir, name string) error {
	up := mover{to: d}
	err := up.empty(name)
	for len(up.todo) > 0 {
		next := up.todo[len(up.todo)-1]
		up.todo = up.todo[:len(up.todo)-1]
		err = errors.Join(err, up.empty(next))
	}
	return err
}

// removeEmpty removes name in d unless it is a directory with something in it:
// then it is full.
func removeEmpty(d *safefs.Dir, name string) (full bool, err error) {
	err = d.Unlink(name)
	if errors.Is(err, syscall.EISDIR) || errors.Is(err, syscall.EPERM) {
		err = d.Rmdir(name)
	}
	switch {
	case absent(err):
		return false, nil
	case errors.Is(err, syscall.ENOTEMPTY), errors.Is(err, syscall.EEXIST):
		return true, nil
	}
	return false, err
}

// mover moves directories that are not empty into one.
type mover struct {
	to   *safefs.Dir
	todo []string // in to, not empty yet
	last uint64
}

// empty removes the directory name in to once what is in it is removed, or moved.
// Its mode, which somebody who has it open still sees, is changed only where that
// keeps its owner, an ordinary user, from that.
func (m *mover) empty(name string) error {
	err := m.emptyOnce(name)
	if errors.Is(err, syscall.EACCES) {
		_ = m.to.Chmod(name, 0o700) // refused: the rest says why
		err = m.emptyOnce(name)
	}
	return err
}

func (m *mover) emptyOnce(name string) error {
	dir, err := m.to.OpenDir(name)
	if err != nil {
		return err
	}
	var names []string
	err = dir.ReadDir(func(e safefs.Entry) error {
		names = append(names, e.Name)
		return nil
	})
	for _, child := range names {
		full, rerr := removeEmpty(dir, child)
		if full {
			rerr = m.up(dir, child)
		}
		err = errors.Join(err, rerr)
	}
	return errors.Join(err, dir.Close(), m.to.Rmdir(name))
}

// up moves name in dir. Where that cannot be (a directory that an overlay has
// merged) it is removed where it is, with a descriptor a level. Where nothing can be
// moved with the promise that nothing is replaced, an empty directory may be, which
// was to be removed too.
func (m *mover) up(dir *safefs.Dir, name string) error {
	_ = dir.Chmod(name, 0o700) // an ordinary user's: whoever moves a directory writes to it
	for {
		m.last++
		to := stagePrefix + "rm" + strconv.FormatUint(m.last, 16)
		err := dir.Rename(name, m.to, to, unix.RENAME_NOREPLACE)
		if errors.Is(err, syscall.EINVAL) {
			err = dir.Rename(name, m.to, to, 0)
		}
		switch {
		case err == nil:
			m.todo = append(m.todo, to)
			return nil
		case !errors.Is(err, syscall.EEXIST) && !errors.Is(err, syscall.ENOTEMPTY) && !errors.Is(err, syscall.ENOTDIR):
			return removeTree(dir, name)
		}
	}
}
