package layertar

import (
	"archive/tar"
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/plyfs/plyfs/internal/spill"
	"github.com/plyfs/plyfs/internal/unix"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/safefs"
	"github.com/plyfs/plyfs/internal/whiteout"
)

// generator writes events as tar members, in the header style of the peers:
// ustar, PAX where it does not fit; the mode with its type bits; whole
// seconds; `root` for ID 0 and no other names, which would be this machine's.
type generator struct {
	s     *Source
	out   *bufio.Writer
	tw    *tar.Writer
	links *spill.Links // the first name of each hard-linked file
	buf   []byte       // of contentBuf, or less while no file needs more
	// part says that it makes a part of another one's stream: out is nil.
	part bool
}

const (
	contentBuf = 64 << 10 // the size of a generator's reads
	firstBuf   = 4 << 10  // as long as all files are small, as in most diffs
	writeBuf   = 32 << 10 // larger ones cost the allocator more than they save
)

func newGenerator(w io.Writer, s *Source) *generator {
	out := bufio.NewWriterSize(w, writeBuf)
	return &generator{s: s, out: out, tw: tar.NewWriter(out), links: spill.NewLinks(), buf: make([]byte, firstBuf)}
}

func (g *generator) end() error { return errors.Join(g.tw.Close(), g.out.Flush()) }

func (g *generator) event(e *event) error {
	var err error
	switch e.what {
	case present:
		err = g.file(e)
	case gone:
		dir, base := splitName(e.path)
		err = g.tw.WriteHeader(&tar.Header{
			Typeflag: tar.TypeReg, Name: join(dir, whiteout.Name(base)), Uname: "root", Gname: "root", ModTime: wholeSeconds(e.ent.st.Mtime),
		})
	case opaqueDir:
		err = g.tw.WriteHeader(&tar.Header{
			Typeflag: tar.TypeReg, Name: join(e.path, whiteout.OpaqueName), Mode: 0o755, Uname: "root", Gname: "root", ModTime: time.Unix(0, 0),
		})
	}
	if err != nil {
		return fmt.Errorf("write %s to the diff: %w", quote(clip(e.path)), err)
	}
	return nil
}

// file writes an entry. A regular file is told as what it is once it is open,
// so that header and content are of one file, whatever has its name by then.
func (g *generator) file(e *event) (err error) {
	switch e.ent.st.Type() {
	case unix.S_IFSOCK:
		return nil
	case unix.S_IFREG:
	default:
		return g.member(e)
	}
	now, ent := *e, *e.ent
	now.ent = &ent
	if ent.file, err = ent.dir.OpenFile(ent.name); errors.Is(err, syscall.EACCES) {
		return g.closed(e, err)
	} else if err != nil {
		return ofEntry(err)
	}
	defer closing(&err, ent.file.Close)
	if ent.st, err = ent.file.Stat(); err != nil {
		return err
	}
	if ent.names, err = ent.file.ListxattrTo(g.buf); err != nil && !errors.Is(err, syscall.EOPNOTSUPP) {
		return err
	}
	ent.listed = true
	if ent.st.Type() != unix.S_IFREG || becameMark(e.ent, &ent) {
		return &vanishedError{syscall.ESTALE}
	}
	return g.member(&now)
}

// closed writes a file that must not be read: one without content needs not be.
func (g *generator) closed(e *event, denied error) error {
	now, ent := *e, *e.ent
	now.ent = &ent
	var err error
	if ent.st, err = ent.dir.Stat(ent.name); err != nil {
		return ofEntry(err)
	}
	if ent.st.Type() != unix.S_IFREG || ent.st.Size > 0 {
		return denied
	}
	return g.member(&now)
}

// becameMark tells whether a name whose file was no whiteout has one by now.
func becameMark(was, is *uentry) bool {
	return is.st.Size == 0 && was.st.Ino != 0 && was.st.Ino != is.st.Ino &&
		slices.ContainsFunc(bytes.Split(is.names, []byte{0}), func(n []byte) bool {
			return whiteout.IsPrivate(string(n)) && bytes.HasSuffix(n, []byte(".whiteout"))
		})
}

func (g *generator) member(e *event) error {
	st := &e.ent.st
	h := &tar.Header{Name: e.path}
	if err := g.kind(h, e); err != nil {
		return err
	}
	h.Mode, h.ModTime = int64(st.Mode), wholeSeconds(st.Mtime)
	if err := g.owner(h, e); err != nil {
		return ofEntry(err)
	}
	meta, err := g.xattrs(h, e.ent)
	if err != nil {
		return ofEntry(err)
	}
	if st.Nlink > 1 && !st.IsDir() {
		if g.part {
			return errAgain
		}
		first, again, err := g.links.Find(st.Dev, st.Ino)
		if err != nil {
			return err
		}
		if again { // with its attributes, as the peers repeat them
			h.Typeflag, h.Linkname, h.Size = tar.TypeLink, first, 0
			h.Devmajor, h.Devminor = 0, 0
			return g.tw.WriteHeader(h)
		}
	}
	if h.Typeflag == tar.TypeReg && h.Size > 0 {
		return g.regular(h, e, meta)
	}
	return g.header(h, e)
}

// header writes what is no hard link. From now on other names of the file can
// be links to it, and whatever fails ends the diff.
func (g *generator) header(h *tar.Header, e *event) error {
	if st := &e.ent.st; st.Nlink > 1 && !st.IsDir() {
		if _, _, err := g.links.First(st.Dev, st.Ino, e.path); err != nil {
			return err
		}
	}
	return g.tw.WriteHeader(h)
}

func (g *generator) kind(h *tar.Header, e *event) (err error) {
	st := &e.ent.st
	switch st.Type() {
	case unix.S_IFREG:
		h.Typeflag, h.Size = tar.TypeReg, int64(st.Size)
	case unix.S_IFDIR:
		h.Typeflag = tar.TypeDir
		h.Name += "/"
	case unix.S_IFLNK:
		h.Typeflag = tar.TypeSymlink
		h.Linkname, err = readlink(e.ent)
	case unix.S_IFIFO:
		h.Typeflag = tar.TypeFifo
	case unix.S_IFCHR, unix.S_IFBLK:
		h.Typeflag = tar.TypeChar
		if st.Type() == unix.S_IFBLK {
			h.Typeflag = tar.TypeBlock
		}
		h.Devmajor, h.Devminor = int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev))
	}
	return err
}

func (g *generator) owner(h *tar.Header, e *event) error {
	st := &e.ent.st
	uid, gid, err := g.s.Maps.ToContainer(int(st.UID), int(st.GID))
	if err != nil {
		return errno.New(errno.ErrBadValue, "its owner cannot be told: %w", err)
	}
	h.Uid, h.Gid = uid, gid
	if g.s.OverrideStat && st.Type() != unix.S_IFLNK {
		v, err := e.ent.dir.Getxattr(e.ent.name, whiteout.OverrideStat)
		if err == nil {
			err = override(h, string(v))
		}
		if err != nil && !errors.Is(err, unix.ENODATA) && !errors.Is(err, syscall.EOPNOTSUPP) && !errors.Is(err, syscall.EPERM) {
			return err
		}
	}
	if h.Uid == 0 {
		h.Uname = "root"
	}
	if h.Gid == 0 {
		h.Gname = "root"
	}
	return nil
}

// override takes owners from the attribute, `uid:gid:mode`, and what a file
// stands for from what may follow, `:char-MAJOR-MINOR` or `:block-MAJOR-MINOR`.
func override(h *tar.Header, v string) error {
	f := strings.Split(v, ":")
	if len(f) < 3 {
		return errno.New(errno.ErrDamaged, "its attribute %s has the value %s", whiteout.OverrideStat, quote(clip(v)))
	}
	uid, errU := strconv.ParseUint(f[0], 10, 32)
	gid, errG := strconv.ParseUint(f[1], 10, 32)
	if err := errors.Join(errU, errG); err != nil {
		return errno.New(errno.ErrDamaged, "its attribute %s has the value %s", whiteout.OverrideStat, quote(clip(v)))
	}
	h.Uid, h.Gid = int(uid), int(gid)
	// Set-ID bits of others than root are in the note only (op.noted).
	if mode, err := strconv.ParseUint(f[2], 8, 32); err == nil {
		if uid != 0 {
			h.Mode |= int64(mode & setUID)
		}
		if gid != 0 {
			h.Mode |= int64(mode & setGID)
		}
	}
	if len(f) == 4 {
		standsFor(h, f[3])
	}
	return nil
}

// standsFor reads the kind of a device; any other text means nothing.
func standsFor(h *tar.Header, what string) {
	kind, numbers, _ := strings.Cut(what, "-")
	flag, ok := map[string]byte{"char": tar.TypeChar, "block": tar.TypeBlock}[kind]
	major, minor, both := strings.Cut(numbers, "-")
	ma, errA := strconv.ParseUint(major, 10, 12)
	mi, errI := strconv.ParseUint(minor, 10, 20)
	if ok && both && errA == nil && errI == nil {
		h.Typeflag, h.Devmajor, h.Devminor, h.Size = flag, int64(ma), int64(mi), 0
	}
}

// xattrs adds the attributes that are content; meta says that the file may be a
// metacopy.
func (g *generator) xattrs(h *tar.Header, e *uentry) (meta bool, err error) {
	if h.Typeflag == tar.TypeSymlink {
		return false, nil
	}
	xs, meta, err := exportXattrs(e, g.buf)
	if err != nil {
		return false, err
	}
	for _, x := range xs {
		if h.PAXRecords == nil {
			h.PAXRecords = map[string]string{}
		}
		h.PAXRecords[paxXattr+x.name] = string(x.value)
	}
	return meta, nil
}

// readlink reads a symlink's text. Where another one has taken its name
// meanwhile, it is that one's, and so are the entry's attributes from now on.
func readlink(e *uentry) (text string, err error) {
	for range 16 {
		text, err = e.dir.Readlink(e.name)
		if errors.Is(err, syscall.EINVAL) { // no symlink by now
			return "", &vanishedError{err}
		}
		if err != nil {
			return "", ofEntry(err)
		}
		now, err := e.dir.Stat(e.name)
		if err != nil {
			return "", ofEntry(err)
		}
		if now.Dev == e.st.Dev && now.Ino == e.st.Ino && now.Ctime.Equal(e.st.Ctime) {
			return text, nil
		}
		e.st = now
	}
	return "", &vanishedError{syscall.ESTALE}
}

// regular writes a file with content: its own, or for a metacopy, which meta
// says it may be, that of a file below.
func (g *generator) regular(h *tar.Header, e *event, meta bool) (err error) {
	f := e.ent.file
	if meta {
		dir, err := e.parts()
		if err != nil {
			return err
		}
		if f, err = e.u.content(dir, e.ent); err != nil {
			return ofEntry(err)
		}
		if f != e.ent.file {
			defer closing(&err, f.Close)
		}
	}
	if err := g.header(h, e); err != nil {
		return err
	}
	if f == e.ent.file && e.ent.st.Blocks >= uint64(h.Size+511)/512 {
		return g.data(f, 0, h.Size) // no hole worth a look
	}
	return g.content(f, h.Size)
}

// content writes size bytes of f, holes without reading them. A file that
// shrinks meanwhile, or is of another type by now, is filled up with zeros, one
// that grows is cut off.
func (g *generator) content(f *safefs.File, size int64) error {
	for off := int64(0); off < size; {
		data, hole := size, size
		if d, err := f.Seek(off, unix.SEEK_DATA); err == nil {
			data = min(d, size)
		} else if !errors.Is(err, syscall.ENXIO) {
			data = off
		}
		if err := g.zeros(data - off); err != nil {
			return err
		}
		if data == size {
			return nil
		}
		if h, err := f.Seek(data, unix.SEEK_HOLE); err == nil && h > data {
			hole = min(h, size)
		}
		if err := g.data(f, data, hole); err != nil {
			return err
		}
		off = hole
	}
	return nil
}

func (g *generator) zeros(n int64) error {
	clear(g.buf)
	for n > 0 {
		k := min(n, int64(len(g.buf)))
		if _, err := g.tw.Write(g.buf[:k]); err != nil {
			return err
		}
		n -= k
	}
	return nil
}

func (g *generator) data(f *safefs.File, from, to int64) error {
	if to-from > int64(len(g.buf)) && len(g.buf) < contentBuf {
		g.buf = make([]byte, contentBuf)
	}
	for from < to {
		n, err := f.ReadAt(g.buf[:min(int64(len(g.buf)), to-from)], from)
		if n == 0 {
			if errors.Is(err, io.EOF) || errors.Is(err, syscall.EISDIR) || errors.Is(err, syscall.ESPIPE) {
				return g.zeros(to - from)
			}
			return err
		}
		if _, err := g.tw.Write(g.buf[:n]); err != nil {
			return err
		}
		from += int64(n)
	}
	return nil
}

// wholeSeconds cuts the fraction off: archive/tar would round it up.
func wholeSeconds(t time.Time) time.Time { return time.Unix(t.Unix(), 0) }
