package whiteout

import (
	"strings"

	"github.com/plyfs/plyfs/internal/unix"
)

// The namespaces of the marks that are extended attributes
// (Documentation/filesystems/overlayfs.rst).
const (
	TrustedPrefix = "trusted.overlay."
	UserPrefix    = "user.overlay."
	// FusePrefix holds what the C mount program keeps for itself.
	FusePrefix = "user.fuseoverlayfs."
	// OverridePrefix and OverrideStat hold ownership that could not be set.
	OverridePrefix = "user.containers."
	OverrideStat   = "user.containers.override_stat"

	escape = "overlay."
)

// XattrPrefix returns the namespace of a style's attributes, "" where a style
// has none of its own.
func (s Style) XattrPrefix() string {
	switch s {
	case Trusted:
		return TrustedPrefix
	case User:
		return UserPrefix
	case Apply, Files:
	}
	return ""
}

// IsDevice tells whether a file of that mode and device number is a whiteout
// of the kernel's form: character device 0:0.
func IsDevice(mode uint32, rdev uint64) bool {
	return mode&unix.S_IFMT == unix.S_IFCHR && rdev == 0
}

// IsPrivate tells whether an extended attribute is bookkeeping of an overlay
// and no content: it is never imported and never exported, for a stream that
// could set one could hide files or redirect a directory.
func IsPrivate(name string) bool {
	for _, p := range [...]string{TrustedPrefix, UserPrefix, FusePrefix} {
		if strings.HasPrefix(name, p) {
			return true
		}
	}
	return name == OverrideStat || name == "user.fuseoverlayfs" || strings.HasPrefix(name, "security.fuseoverlayfs.")
}

// Escape turns an attribute as seen in a mount into the one stored in a layer
// of that style, and Unescape back: the kernel's own nesting rule, by which
// `trusted.overlay.x` in the mount is `trusted.overlay.overlay.x` below.
// Unescape(Escape(n)) is (n, true) for every n, and Unescape is false exactly
// for the layer's bookkeeping, which the mount does not show.
func (s Style) Escape(name string) string {
	p := s.XattrPrefix()
	if p == "" || !strings.HasPrefix(name, p) {
		return name
	}
	return p + escape + name[len(p):]
}

// Unescape is the inverse of Escape.
func (s Style) Unescape(name string) (string, bool) {
	p := s.XattrPrefix()
	if p == "" || !strings.HasPrefix(name, p) {
		return name, true
	}
	rest, ok := strings.CutPrefix(name[len(p):], escape)
	if !ok {
		return "", false
	}
	return p + rest, true
}
