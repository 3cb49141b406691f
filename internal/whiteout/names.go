package whiteout

import "strings"

// The names of marks in a tar stream (OCI image specification, "Layer").
const (
	// Prefix stands before the name that a whiteout hides.
	Prefix = ".wh."
	// OpaqueName is the mark within an opaque directory.
	OpaqueName = ".wh..wh..opq"
	// metaPrefix begins names that old union filesystems kept for themselves.
	metaPrefix = ".wh..wh."
)

// Mark is what a file name in a stream says.
type Mark uint8

const (
	// Plain is the name of a file.
	Plain Mark = iota
	// Whiteout hides the name that follows the prefix.
	Whiteout
	// Opaque hides everything below the directory that it stands in.
	Opaque
	// Meta is a name that old union filesystems kept for themselves; it is
	// neither a file nor a mark and is to be passed over.
	Meta
	// Invalid is a whiteout of nothing, of "." or of "..".
	Invalid
)

// Name returns the whiteout of base. For every base that is a file name and
// no mark itself, Parse(Name(base)) is (Whiteout, base).
func Name(base string) string { return Prefix + base }

// Parse tells what a file name in a stream says and, for a Whiteout, which
// name it hides.
func Parse(base string) (Mark, string) {
	rest, ok := strings.CutPrefix(base, Prefix)
	switch {
	case !ok:
		return Plain, ""
	case base == OpaqueName:
		return Opaque, ""
	case strings.HasPrefix(base, metaPrefix):
		return Meta, ""
	case rest == "" || rest == "." || rest == "..":
		return Invalid, ""
	}
	return Whiteout, rest
}
