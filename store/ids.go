package store

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/plyfs/plyfs/internal/errno"
)

// Limits of what we make; longer ones from other programs are read.
const (
	// maxIDLen leaves room in a file name for what is appended to an ID.
	maxIDLen   = 128
	maxNameLen = 4096
)

// unsafeID says why an ID must never become part of a path, or "". Besides
// what a file name cannot be, these are names that files beside the objects'
// own have (format.md §2.1).
func unsafeID(id string) string {
	switch {
	case id == "":
		return "it has no ID"
	case id == "l", id == "tempdirs":
		return "its ID is the name of a folder of the driver"
	case id[0] == '.':
		return "its ID begins with a dot"
	case strings.ContainsAny(id, "/\x00"):
		return "its ID is no file name"
	case len(id) > 255-len(".tar-split.gz"):
		return "its ID is too long for a file name"
	}
	for _, suffix := range [...]string{".json", ".lock", ".tar-split.gz"} {
		if strings.HasSuffix(id, suffix) {
			return "its ID ends in " + suffix
		}
	}
	return ""
}

// checkNewID refuses an ID that a new object cannot have. The text is a
// sentence; the kind of the error is ErrBadValue or ErrNameTooLong.
func checkNewID(k Kind, id string) error {
	switch {
	case len(id) > maxIDLen:
		return errno.New(errno.ErrNameTooLong, "%s ID %.20q… has %d bytes, more than %d; choose a shorter one", k, id, len(id), maxIDLen)
	case unsafeID(id) != "":
		return errno.New(errno.ErrBadValue, "%s %q cannot be made: %s; use 64 hex digits", k, id, unsafeID(id))
	case !utf8.ValidString(id) || strings.ContainsFunc(id, isControl):
		return errno.New(errno.ErrBadValue, "%s ID %q has bytes that are no text; use 64 hex digits", k, id)
	}
	return nil
}

// checkName refuses a name that cannot be kept: empty, too long, not UTF-8
// (the files are JSON), or with a byte that would break lists of names (NUL
// and line feed). Other control bytes are accepted as the peers accept them.
func checkName(name string) error {
	switch {
	case name == "":
		return errno.New(errno.ErrBadValue, "an empty name is no name; give at least one character")
	case len(name) > maxNameLen:
		return errno.New(errno.ErrNameTooLong, "name %.20q… has %d bytes, more than %d; choose a shorter one", name, len(name), maxNameLen)
	case !utf8.ValidString(name):
		return errno.New(errno.ErrBadValue, "name %q is not UTF-8 and cannot be kept in the store's files; choose another", name)
	case strings.ContainsAny(name, "\x00\n"):
		return errno.New(errno.ErrBadValue, "name %q has a NUL or a line break in it; choose another", name)
	}
	return nil
}

// checkNames is checkName for each; it also drops repeats, keeping the first.
func checkNames(names []string) ([]string, error) {
	out := make([]string, 0, len(names))
	for _, n := range names {
		if err := checkName(n); err != nil {
			return nil, err
		}
		if !slices.Contains(out, n) {
			out = append(out, n)
		}
	}
	return out, nil
}

func isControl(r rune) bool { return r < ' ' || r == 0x7f }

// newID returns 64 random lower-case hex digits.
func newID() (string, error) {
	var b [32]byte
	if _, err := rand.Read(b[:]); err != nil {
		return "", fmt.Errorf("random bytes for an ID: %w", err)
	}
	return hex.EncodeToString(b[:]), nil
}
