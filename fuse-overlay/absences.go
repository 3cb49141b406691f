package fuseoverlay

import (
	"errors"
	"hash/maphash"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/internal/safefs"
)

// absences are what a place is known not to have. A look-up asks each layer of
// a directory, a rename twice, and most have neither name nor mark: so a place
// that was asked in vain often is listed once, if it is small for that, and what
// is not in the list costs no system call. Nobody changes the lower layers while
// they are mounted, and the kernel believes for good that a name is not there, too.
//
// Left out is what does change (volatile layers; an upper and a workdir inside
// a lower one; all, where the kernel is to ask again) and directories in which a
// name may be found by another one, or is not always listed by the same: of
// filesystems other than those of exactListing, and of those with the flags of
// unlike or that are seen to take letters for others. Of the upper only marks are
// known that this mount makes none of.
//
// Both fields may be used by many at once: of those who list a place at a time,
// any one's result counts.
type absences struct {
	misses atomic.Uint32
	known  atomic.Pointer[nameSet]
}

// oftenMissed is how many look-ups in vain make a place be listed; eight times
// as many, and so on below mostMissed, when it had more than entriesPerMiss names
// for each. So a place weighs no more than 64 bytes for each look-up in vain, nor
// than 2 MiB, and what is listed is no more than 19 names for each.
const (
	oftenMissed    = 64
	mostMissed     = 1 << 16
	entriesPerMiss = 16
)

// nameSet has the hashes of names, in order. Two names with one hash make a
// look-up that could be spared, no more.
type nameSet struct {
	seed   maphash.Seed
	hashes []uint32
}

// may tells whether prefix+name may be in s; false is certain.
func (s *nameSet) may(prefix, name string) bool {
	var h maphash.Hash
	h.SetSeed(s.seed)
	_, _ = h.WriteString(prefix) // never fails
	_, _ = h.WriteString(name)
	_, found := slices.BinarySearch(s.hashes, uint32(h.Sum64()))
	return found
}

// lacks tells that p, of a lower layer, has neither name nor its mark.
func (p *place) lacks(name string) bool {
	s := p.absences.known.Load()
	return s != nil && !p.writable() && !s.may("", name) && !s.may(whiteoutPrefix, name)
}

// lacksMark tells that p has no `.wh.NAME`. In the upper that holds for good,
// since only a mount without devices makes such files.
func (p *place) lacksMark(name string) bool {
	s := p.absences.known.Load()
	return s != nil && !s.may(whiteoutPrefix, name)
}

// missed counts a look-up in vain in p, which is open as dir.
func (p *place) missed(dir *safefs.Dir) {
	t := p.tree
	if t.often == 0 || !p.exact() || p.layer.Volatile || p.writable() && t.dotWh || p.absences.known.Load() != nil {
		return
	}
	for k, m := t.often, p.absences.misses.Add(1); k <= m && k < mostMissed; k *= 8 {
		if k == m {
			p.learn(dir, int(k)*entriesPerMiss)
		}
	}
}

// learn lists p, unless it has more than limit names. That it cannot be listed,
// whole, is for others to say: nothing is known then.
func (p *place) learn(dir *safefs.Dir, limit int) {
	if p.besideWork() || unlike(dir) {
		return
	}
	s := &nameSet{seed: maphash.MakeSeed()}
	var letters string // the first name that has any
	n := 0
	err := dir.ReadDir(func(e safefs.Entry) error {
		if n++; n > limit {
			return syscall.E2BIG
		}
		if letters == "" && swapCase(e.Name) != "" {
			letters = e.Name
		}
		if !p.writable() || strings.HasPrefix(e.Name, whiteoutPrefix) {
			s.hashes = append(s.hashes, uint32(maphash.String(s.seed, e.Name)))
		}
		return nil
	})
	if err != nil || letters != "" && p.folds(dir, letters) {
		return
	}
	slices.Sort(s.hashes)
	s.hashes = slices.Clone(s.hashes) // without the room that append left
	p.absences.known.Store(s)
}

// besideWork tells whether p, of a lower layer, is the upper or the work
// directory, or in one: a bind mount may bring them where no path tells it.
func (p *place) besideWork() bool {
	if p.writable() {
		return false
	}
	for q := p; q != nil; q = q.up {
		if slices.Contains(p.tree.written, fileID{q.dev, q.ino}) {
			return true
		}
	}
	return false
}

// Flags of linux/fs.h. In a directory with casefold names are found in upper and
// lower case and other spellings; in an encrypted one they are others without the key.
const (
	flagEncrypted = 0x00000800 // FS_ENCRYPT_FL
	flagCasefold  = 0x40000000 // FS_CASEFOLD_FL
)

// unlike tells whether the directory may find names that it does not list, by
// its flags.
func unlike(dir *safefs.Dir) bool {
	fd, err := dir.OpenFD(".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return true
	}
	defer closeFDs([]int{fd})
	flags, err := unix.IoctlGetUint32(fd, unix.FS_IOC_GETFLAGS)
	if err != nil {
		return !errors.Is(err, syscall.ENOTTY) && !errors.Is(err, syscall.EOPNOTSUPP) // else it knows no flags
	}
	return flags&(flagCasefold|flagEncrypted) != 0
}

// folds tells whether dir, p's directory, which lists name, finds it in the other
// case, too (XFS made with ascii-ci, which has no flag). Two names of one file
// are taken for that.
func (p *place) folds(dir *safefs.Dir, name string) bool {
	other, err := p.stat(dir, swapCase(name))
	if err != nil {
		return !absent(err)
	}
	st, err := p.stat(dir, name)
	return err != nil || st.Dev == other.Dev && st.Ino == other.Ino
}

// swapCase returns the name with its first letter in the other case, "" when it
// has none.
func swapCase(name string) string {
	for i := range len(name) {
		if c := name[i] | 0x20; 'a' <= c && c <= 'z' {
			return name[:i] + string(name[i]^0x20) + name[i+1:]
		}
	}
	return ""
}
