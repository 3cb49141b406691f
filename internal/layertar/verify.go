package layertar

import (
	"context"
	"encoding/binary"
	"errors"
	"hash/maphash"
	"io"
	"slices"
	"strings"
	"syscall"

	"github.com/plyfs/plyfs/internal/unix"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/safefs"
)

// VerifyOptions say what Verify leaves out.
type VerifyOptions struct {
	// Loose leaves out owners, modes and device nodes: for layers of users
	// who cannot give files away, or whose driver changes modes.
	Loose bool
	// Limit bounds the differences that are returned; 0 is 100.
	Limit int
}

// Verify compares a layer's tree, as src tells it, with the stream that it was
// made of: what was added to it, deleted from it, or has other attributes, type
// or size. Content is not read (Copy does that), nor are times and extended
// attributes. Directories that the stream does not name, but leads through, may
// be anything. Memory grows with the number of members, by some 50 bytes each.
// ErrDamaged when the record holds no tar.
func (s *Split) Verify(ctx context.Context, src Source, o VerifyOptions) ([]Change, error) {
	if o.Limit <= 0 {
		o.Limit = 100
	}
	dirs := src.New
	if src.Upper != "" {
		dirs = []string{src.Upper}
	}
	if len(dirs) == 0 {
		return nil, errno.New(errno.ErrBadValue, "a tree without a directory cannot be compared")
	}
	if err := s.load(); err != nil {
		return nil, err
	}
	root, err := safefs.OpenRoot(dirs[0])
	if err != nil {
		return nil, err
	}
	v := &verifier{
		s: s, o: o, src: &src, root: root, seed: maphash.MakeSeed(),
		want: map[uint64]wanted{}, led: map[uint64]struct{}{}, opaque: map[uint64]struct{}{},
	}
	err = v.run(ctx)
	if errors.Is(err, errEnough) {
		err = nil
	}
	slices.SortFunc(v.out, func(a, b Change) int { return strings.Compare(a.Path, b.Path) })
	return v.out, errors.Join(err, root.Close())
}

// errEnough ends a comparison at its limit.
var errEnough = errors.New("there are more differences than are wanted")

// wanted is what the stream says of a path.
type wanted struct {
	sum   uint64 // of its attributes
	white bool   // it hides what is below
	any   bool   // its attributes are those of a file of another layer
	seen  bool   // it was met in the tree
}

// verifier is one run of Verify. Paths are kept as their hashes.
type verifier struct {
	s    *Split
	o    VerifyOptions
	src  *Source
	root *safefs.Dir // the layer's own directory
	seed maphash.Seed

	want   map[uint64]wanted
	led    map[uint64]struct{} // directories above a member
	opaque map[uint64]struct{} // directories with an opaque mark
	out    []Change

	lastDir, lastReal string // realDir's last answer
}

func (v *verifier) run(ctx context.Context) error {
	if err := v.members(ctx, v.note); err != nil {
		return err
	}
	if err := walkSource(ctx, v.src, askKinds|askDirs|askFiles, v.event, nil); err != nil {
		return err
	}
	return v.members(ctx, v.unmet)
}

func (v *verifier) key(path string) uint64 { return maphash.String(v.seed, path) }

func (v *verifier) differs(path string, kind ChangeKind) error {
	if len(v.out) >= v.o.Limit {
		return errEnough
	}
	v.out = append(v.out, Change{"/" + path, kind})
	return nil
}

// members yields the stream's members with their real places, without content.
func (v *verifier) members(ctx context.Context, yield func(h *header, o *op) error) error {
	in := &hollow{s: v.s}
	p := &parser{in: in, raw: func([]byte) {}, lim: DefaultLimits()}
	p.lim.Total = -1
	for {
		h, err := p.next()
		if err == io.EOF { //nolint:errorlint // next returns it bare
			return nil
		}
		if err != nil {
			return errno.New(errno.ErrDamaged, "the tar-split record %s holds no tar: %w", v.s.base, err)
		}
		if err := context.Cause(ctx); err != nil {
			return err
		}
		o, reason := planMember(h, p.lim)
		if reason != "" {
			return errno.New(errno.ErrDamaged, "the tar-split record %s holds a member %s that cannot be: %s", v.s.base, quote(clip(h.name)), reason)
		}
		if o.dir, err = v.realDir(o.dir); err != nil {
			return err
		}
		if err := yield(h, &o); err != nil {
			return err
		}
		if !h.isSparse {
			in.skip(p.left)
			p.off += p.left
			p.left = 0
		}
	}
}

// hollow is the stream with zeros in place of files' content.
type hollow struct {
	s   *Split
	off int64
	at  int64 // the entry that holds off, or one before it
}

func (r *hollow) skip(n int64) { r.off += n }

func (r *hollow) Read(b []byte) (int, error) {
	for ; r.at < r.s.n; r.at++ {
		e, err := r.s.entry(r.at)
		if err != nil {
			return 0, err
		}
		in := r.off - e.start
		if in >= e.size {
			continue
		}
		b = b[:min(int64(len(b)), e.size-in)]
		if e.name != 0 {
			clear(b)
		} else if n, err := r.s.data.ReadAt(b, e.where+in); n < len(b) {
			return 0, err
		}
		r.off += int64(len(b))
		return len(b), nil
	}
	return 0, io.EOF
}

// realDir resolves the symlinks in a member's directory as the import did.
func (v *verifier) realDir(dir string) (string, error) {
	if dir == "" || dir == v.lastDir {
		if dir != "" {
			dir = v.lastReal
		}
		return dir, nil
	}
	real := dir
	d, err := v.root.OpenDirAt(dir, safefs.InRoot)
	if err == nil {
		real, err = d.Place(v.root)
		if err = errors.Join(err, d.Close()); err != nil {
			return "", err
		}
	} else if !missing(err) {
		return "", err
	}
	v.lastDir, v.lastReal = dir, real
	return real, nil
}

func missing(err error) bool {
	return errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.ELOOP)
}

// note takes down what the stream says.
func (v *verifier) note(h *header, o *op) error {
	for dir := o.dir; dir != ""; dir, _ = splitName(dir) {
		k := v.key(dir)
		if _, known := v.led[k]; known {
			break
		}
		v.led[k] = struct{}{}
	}
	switch o.kind {
	case opSkip, opRoot:
	case opOpaque:
		v.opaque[v.key(o.dir)] = struct{}{}
	case opWhiteout:
		k := v.key(join(o.dir, o.target))
		if _, made := v.want[k]; !made {
			v.want[k] = wanted{white: true}
		}
	case opLink:
		w, ok := v.want[v.key(o.target)]
		if !ok || w.white {
			w = wanted{any: true}
		}
		v.want[v.key(join(o.dir, o.base))] = w
	case opDir, opFile, opSymlink, opNode:
		v.want[v.key(join(o.dir, o.base))] = wanted{sum: v.sumOf(h, o), any: v.o.Loose && o.kind == opNode && o.node != unix.S_IFIFO}
	}
	return nil
}

// facts are the attributes that count.
type facts struct {
	typ, perm, uid, gid uint32
	size, rdev          uint64
	link                string
}

func (v *verifier) sum(f facts) uint64 {
	if v.o.Loose {
		f.perm, f.uid, f.gid = 0, 0, 0
	}
	if f.typ == unix.S_IFLNK {
		f.perm = 0
	}
	var h maphash.Hash
	h.SetSeed(v.seed)
	var b [32]byte
	binary.NativeEndian.PutUint32(b[0:], f.typ)
	binary.NativeEndian.PutUint32(b[4:], f.perm)
	binary.NativeEndian.PutUint32(b[8:], f.uid)
	binary.NativeEndian.PutUint32(b[12:], f.gid)
	binary.NativeEndian.PutUint64(b[16:], f.size)
	binary.NativeEndian.PutUint64(b[24:], f.rdev)
	h.Write(b[:])
	h.WriteString(f.link)
	return h.Sum64()
}

// sumOf is the sum of a member.
func (v *verifier) sumOf(h *header, o *op) uint64 {
	f := facts{perm: o.perm, uid: uint32(o.uid), gid: uint32(o.gid)}
	switch o.kind {
	case opDir:
		f.typ = unix.S_IFDIR
	case opFile:
		f.typ, f.size = unix.S_IFREG, uint64(h.size)
	case opSymlink:
		f.typ, f.link = unix.S_IFLNK, h.link
	case opNode:
		f.typ, f.rdev = o.node, o.dev
	default:
	}
	return v.sum(f)
}

// sumAt is the sum of a file of the tree; another one when its owner is none
// of the layer's map.
func (v *verifier) sumAt(d *safefs.Dir, name string, st *safefs.Stat) (uint64, error) {
	f := facts{typ: st.Type(), perm: st.Mode & 0o7777}
	uid, gid, err := v.src.Maps.ToContainer(int(st.UID), int(st.GID))
	if err != nil && !v.o.Loose {
		return 0, nil //nolint:nilerr // no member has such an owner
	}
	f.uid, f.gid = uint32(uid), uint32(gid)
	switch f.typ {
	case unix.S_IFREG:
		f.size = st.Size
	case unix.S_IFLNK:
		if f.link, err = d.Readlink(name); err != nil {
			return 0, err
		}
	case unix.S_IFCHR, unix.S_IFBLK:
		f.rdev = st.Rdev
	}
	return v.sum(f), nil
}

// event takes in what the tree says.
func (v *verifier) event(e *event) error {
	k := v.key(e.path)
	w, named := v.want[k]
	_, led := v.led[k]
	switch {
	case e.what == opaqueDir:
		if _, ok := v.opaque[k]; ok || w.white {
			return nil
		}
		return v.differs(e.path, Modify)
	case e.what == gone && named:
		w.seen = true
		v.want[k] = w
		if w.white {
			return nil
		}
		return v.differs(e.path, Delete)
	case e.what == gone:
		if v.hidden(e.path) {
			return nil
		}
		return v.differs(e.path, Delete)
	case named && !w.white:
		w.seen = true
		v.want[k] = w
		return v.compare(e.path, e.ent.dir, e.ent.name, &e.ent.st, w)
	case led, e.quiet, e.ent.st.IsDir() && e.kind == Modify && v.src.Upper == "":
		return nil
	}
	return v.differs(e.path, e.kind)
}

// hidden tells whether the stream hides a path by a mark above it, or by what
// it puts in the place of a directory.
func (v *verifier) hidden(path string) bool {
	for dir, _ := splitName(path); ; dir, _ = splitName(dir) {
		k := v.key(dir)
		if _, ok := v.opaque[k]; ok || v.want[k].white {
			return true
		}
		if dir == "" {
			return false
		}
	}
}

func (v *verifier) compare(path string, d *safefs.Dir, name string, st *safefs.Stat, w wanted) error {
	if w.any {
		return nil
	}
	sum, err := v.sumAt(d, name, st)
	if err != nil || sum == w.sum {
		return err
	}
	return v.differs(path, Modify)
}

// unmet looks for a member that the walk did not meet: it is gone, or the same
// as in the layer below.
func (v *verifier) unmet(_ *header, o *op) error {
	if o.kind < opDir || o.kind > opNode {
		return nil
	}
	path := join(o.dir, o.base)
	w := v.want[v.key(path)]
	if w.white || w.seen {
		return nil
	}
	for _, dir := range append([]string{v.src.Upper}, v.src.New...) {
		if dir == "" {
			continue
		}
		found, err := v.unmetIn(dir, o, path, w)
		if found || err != nil {
			return err
		}
	}
	if v.o.Loose && w.any {
		return nil
	}
	return v.differs(path, Delete)
}

func (v *verifier) unmetIn(dir string, o *op, path string, w wanted) (found bool, err error) {
	root, err := safefs.OpenRoot(dir)
	if err != nil {
		return false, err
	}
	defer closing(&err, root.Close)
	d := root
	if o.dir != "" {
		if d, err = root.OpenDirAt(o.dir, safefs.NoSymlinks); err != nil {
			if missing(err) {
				err = nil
			}
			return false, err
		}
		defer closing(&err, d.Close)
	}
	st, err := d.Stat(o.base)
	if err != nil {
		if missing(err) {
			err = nil
		}
		return false, err
	}
	return true, v.compare(path, d, o.base, &st, w)
}
