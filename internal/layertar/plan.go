package layertar

import (
	"math"
	"path"
	"strings"

	"github.com/plyfs/plyfs/internal/unix"

	"github.com/plyfs/plyfs/internal/whiteout"
)

// opKind is what a member asks for.
type opKind uint8

const (
	opSkip opKind = iota // nothing is made: PAX leftovers, aufs bookkeeping
	opRoot               // the layer's root directory's own attributes
	opDir
	opFile
	opSymlink
	opLink
	opNode // device or FIFO
	opWhiteout
	opOpaque
)

// op is one member after judgement: where it goes, in cleaned names relative
// to the layer's root ("" is the root), and what is made there. Making one is
// a pure function of the header, the limits and nothing else.
type op struct {
	kind      opKind
	dir, base string
	// target is a hard link's, cleaned, or the name that a whiteout hides.
	target string
	perm   uint32 // permission and set-ID bits
	node   uint32 // S_IFCHR, S_IFBLK or S_IFIFO
	dev    uint64
	uid    int
	gid    int
}

// cleanName resolves `..` and absolute names against the layer's root, as a
// chroot(2) would; "" is the root.
func cleanName(name string) string { return path.Clean("/" + name)[1:] }

func splitName(clean string) (dir, base string) {
	if i := strings.LastIndexByte(clean, '/'); i >= 0 {
		return clean[:i], clean[i+1:]
	}
	return "", clean
}

// planMember judges a member and says what to do. A refusal is a reason.
func planMember(h *header, lim Limits) (op, string) {
	if reason := judge(h, lim); reason != "" {
		return op{}, reason
	}
	clean := cleanName(h.name)
	o := op{perm: uint32(h.mode & 0o7777), uid: int(h.uid), gid: int(h.gid)}
	o.dir, o.base = splitName(clean)
	mark, hidden := whiteout.Parse(o.base)
	switch {
	case clean == "" && h.typ == typeDir:
		o.kind = opRoot
		return o, ""
	case clean == "":
		return op{}, "it names the layer's root but is no directory"
	case mark == whiteout.Invalid:
		return op{}, "it is a whiteout of nothing that could have a name"
	case mark == whiteout.Meta:
		o.kind = opSkip
		return o, ""
	case mark == whiteout.Opaque:
		o.kind = opOpaque
		return o, ""
	case mark == whiteout.Whiteout:
		o.kind, o.target = opWhiteout, hidden
		return o, ""
	}
	return planType(h, o)
}

func planType(h *header, o op) (op, string) {
	switch h.typ {
	case typeReg:
		o.kind = opFile
	case typeDir:
		o.kind = opDir
	case typeSymlink:
		o.kind = opSymlink
		if h.link == "" {
			return op{}, "it is a symbolic link to nothing"
		}
	case typeLink:
		o.kind, o.target = opLink, cleanName(h.link)
		if o.target == path.Join(o.dir, o.base) {
			return op{}, "it is a hard link to itself"
		}
		if o.target == "" {
			return op{}, "it is a hard link to the layer's root"
		}
	case typeChar:
		o.kind, o.node, o.dev = opNode, unix.S_IFCHR, unix.Mkdev(uint32(h.major), uint32(h.minor))
	case typeBlock:
		o.kind, o.node, o.dev = opNode, unix.S_IFBLK, unix.Mkdev(uint32(h.major), uint32(h.minor))
	case typeFifo:
		o.kind, o.node = opNode, unix.S_IFIFO
	default:
		return op{}, "its type " + strings.Trim(quoteByte(h.typ), `"`) + " is not supported"
	}
	return o, ""
}

// isID tells whether an owner fits 32 bits, whose highest value means none.
func isID(id int64) bool { return id >= 0 && id < math.MaxUint32 }

// judge holds the limits and ranges that apply to every type.
func judge(h *header, lim Limits) string {
	switch {
	case over(int64(len(h.name)), lim.Name):
		return "its name is longer than the limit"
	case over(int64(len(h.link)), lim.Name):
		return "its link target is longer than the limit"
	case over(int64(strings.Count(h.name, "/")), lim.Components), over(int64(strings.Count(h.link, "/")), lim.Components):
		return "its name has more components than the limit"
	case !isID(h.uid) || !isID(h.gid):
		return "its owner is no 32-bit ID"
	case h.mode < 0:
		return "its mode is negative"
	case h.major < 0 || h.major >= 1<<12 || h.minor < 0 || h.minor >= 1<<20:
		return "its device number is out of range"
	}
	return judgeXattrs(h, lim)
}

func judgeXattrs(h *header, lim Limits) string {
	var total int64
	for _, x := range h.xattrs {
		total += int64(len(x.name) + len(x.value))
		if x.name == "" || strings.IndexByte(x.name, 0) >= 0 {
			return "it has an extended attribute with a bad name"
		}
	}
	if over(total, lim.Xattrs) {
		return "its extended attributes are larger than the limit"
	}
	return ""
}
