package fuseoverlay

import (
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/internal/safefs"
)

// Names of the Files format (OCI image specification, "Layer").
const (
	whiteoutPrefix = ".wh."
	opaqueFile     = ".wh..wh..opq"
)

// maxName is NAME_MAX of Linux.
const maxName = 255

// prefixes are the attribute namespaces of the formats.
const (
	trustedPrefix = "trusted.overlay."
	userPrefix    = "user.overlay."
	fusePrefix    = "user.fuseoverlayfs."
)

// opacity is the value of an opaque mark.
type opacity uint8

const (
	transparent opacity = iota
	// opaque hides what is below ("y").
	opaque
	// xwhiteouts says that whiteouts in attribute form may be inside ("x").
	xwhiteouts
)

// kind is what a layer has under a name.
type kind uint8

const (
	missing kind = iota
	whiteout
	directory
	regular
	other
)

// mark is a file of one layer as the search sees it.
type mark struct {
	kind     kind
	opacity  opacity
	metacopy bool
	// redirect is where to go on below: a name, an absolute path, or ""; as it
	// was read, to be checked by whoever follows it.
	redirect string
}

// markNames are the attributes to read for a format, by meaning.
type markName struct {
	format Format
	name   string
	apply  func(m *mark, value []byte)
}

// markTable says which attributes are marks. Opaque values other than x and y
// mean nothing, as in the kernel.
func markTable() []markName {
	var table []markName
	for _, ns := range []struct {
		format Format
		prefix string
	}{{Trusted, trustedPrefix}, {User, userPrefix}} {
		table = append(table,
			markName{ns.format, ns.prefix + "opaque", applyOpaque},
			markName{ns.format, ns.prefix + "redirect", applyRedirect},
			markName{ns.format, ns.prefix + "metacopy", applyMetacopy})
	}
	return append(table, markName{Fuse, fusePrefix + "opaque", applyOpaque})
}

func applyOpaque(m *mark, v []byte) {
	switch {
	case m.kind != directory:
	case string(v) == "y":
		m.opacity = opaque
	case string(v) == "x" && m.opacity != opaque:
		m.opacity = xwhiteouts
	}
}

func applyRedirect(m *mark, v []byte) {
	m.redirect = string(v)
}

func applyMetacopy(m *mark, _ []byte) { m.metacopy = m.kind == regular }

// badRedirect is the value of a redirect that cannot be followed.
type badRedirect string

func (b badRedirect) Error() string {
	return "the overlay redirect " + strconv.Quote(string(b)) + " is neither a name nor an absolute path of names"
}

// checkRedirect accepts one name, or an absolute path of names without empty
// components, "." and "..": what the kernel writes. Anything else is an error
// and not followed, as in the kernel.
func checkRedirect(v string) error {
	parts := []string{v}
	if strings.HasPrefix(v, "/") {
		parts = strings.Split(v[1:], "/")
	}
	for _, p := range parts {
		if !safefs.ValidName(p) || len(p) > maxName {
			return badRedirect(v)
		}
	}
	return nil
}

// isMarkFile tells whether name is a mark of the Files format (of which
// `.wh..wh..opq`, `.wh..opq` and `.wh..wh.plnk` are reserved ones) and so no
// file of the tree.
func (f Format) isMarkFile(name string) bool {
	return f&Files != 0 && strings.HasPrefix(name, whiteoutPrefix)
}

// whitedOut returns the name that a mark file hides in lower layers, "" if none.
func whitedOut(name string) string {
	if name == opaqueFile {
		return ""
	}
	return strings.TrimPrefix(name, whiteoutPrefix)
}

// override is what an override_stat attribute says.
type override struct {
	uid, gid uint32
	perm     uint32
	// typ and rdev are set for a device that a regular file stands for.
	typ  uint32
	rdev uint64
}

// overrideNames are the attributes of the Override format, first wins.
func overrideNames() []string {
	return []string{"user.containers.override_stat", "user.fuseoverlayfs.override_stat", "security.fuseoverlayfs.override_stat"}
}

// parseOverride reads "uid:gid:mode", mode in octal, perhaps with type bits
// (fuse-overlayfs 1.10 writes both forms), perhaps with ":type" after it, of
// which char-MAJOR-MINOR and block-MAJOR-MINOR mean something.
func parseOverride(v string) (override, bool) {
	parts := strings.SplitN(v, ":", 4)
	if len(parts) < 3 {
		return override{}, false
	}
	uid, err1 := strconv.ParseUint(parts[0], 10, 32)
	gid, err2 := strconv.ParseUint(parts[1], 10, 32)
	mode, err3 := strconv.ParseUint(parts[2], 8, 32)
	if err1 != nil || err2 != nil || err3 != nil {
		return override{}, false
	}
	o := override{uid: uint32(uid), gid: uint32(gid), perm: uint32(mode) & 0o7777}
	if len(parts) == 4 {
		o.typ, o.rdev = parseDevice(parts[3])
	}
	return o, true
}

// parseDevice reads the type of a device; 0 for any other.
func parseDevice(v string) (typ uint32, rdev uint64) {
	kind, numbers, _ := strings.Cut(v, "-")
	major, minor, ok := strings.Cut(numbers, "-")
	a, err1 := strconv.ParseUint(major, 10, 12)
	b, err2 := strconv.ParseUint(minor, 10, 20)
	if !ok || err1 != nil || err2 != nil || a|b == 0 {
		return 0, 0
	}
	switch kind {
	case "char":
		return unix.S_IFCHR, unix.Mkdev(uint32(a), uint32(b))
	case "block":
		return unix.S_IFBLK, unix.Mkdev(uint32(a), uint32(b))
	}
	return 0, 0
}
