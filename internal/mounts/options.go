//go:build linux

package mounts

import (
	"strings"

	"golang.org/x/sys/unix"
)

// wordFlags are the words of mount(8) that are flags of mount(2) and not
// options of the filesystem; a word that clears a flag has clear set.
func wordFlag(word string) (flag uintptr, clear, ok bool) {
	switch word {
	case "ro":
		return unix.MS_RDONLY, false, true
	case "rw":
		return unix.MS_RDONLY, true, true
	case "nodev":
		return unix.MS_NODEV, false, true
	case "dev":
		return unix.MS_NODEV, true, true
	case "nosuid":
		return unix.MS_NOSUID, false, true
	case "suid":
		return unix.MS_NOSUID, true, true
	case "noexec":
		return unix.MS_NOEXEC, false, true
	case "exec":
		return unix.MS_NOEXEC, true, true
	case "noatime":
		return unix.MS_NOATIME, false, true
	case "nodiratime":
		return unix.MS_NODIRATIME, false, true
	case "strictatime":
		return unix.MS_STRICTATIME, false, true
	case "relatime":
		return unix.MS_RELATIME, false, true
	case "defaults", "atime", "diratime", "async", "private", "rprivate", "":
		return 0, false, true
	}
	return 0, false, false
}

// SplitOptions sorts options (each item may itself hold several, separated by
// commas outside double quotes) into flags of mount(2) and options for the
// filesystem, in their order. A later word overrides an earlier one's flag.
func SplitOptions(options []string) (flags uintptr, data []string) {
	for _, item := range options {
		for _, o := range splitCommas(item) {
			f, clearIt, ok := wordFlag(o)
			switch {
			case !ok:
				data = append(data, o)
			case clearIt:
				flags &^= f
			default:
				flags |= f
			}
		}
	}
	return flags, data
}

func splitCommas(s string) []string {
	var out []string
	quoted := false
	start := 0
	for i := range len(s) {
		switch {
		case s[i] == '"':
			quoted = !quoted
		case s[i] == ',' && !quoted:
			out = append(out, s[start:i])
			start = i + 1
		}
	}
	return append(out, s[start:])
}

// escape puts a backslash before each byte of special and before backslashes:
// what the kernel's overlay undoes in lowerdir (`:`, `,`) and in upperdir and
// workdir (`,`). See Documentation/filesystems/overlayfs.rst.
func escape(path, special string) string {
	if !strings.ContainsAny(path, special+`\`) {
		return path
	}
	var b strings.Builder
	for i := range len(path) {
		if path[i] == '\\' || strings.IndexByte(special, path[i]) >= 0 {
			b.WriteByte('\\')
		}
		b.WriteByte(path[i])
	}
	return b.String()
}

// attrOf translates MS_* flags into MOUNT_ATTR_* of fsmount(2).
func attrOf(flags uintptr) int {
	attr := 0
	for ms, at := range map[uintptr]int{
		unix.MS_RDONLY:      unix.MOUNT_ATTR_RDONLY,
		unix.MS_NODEV:       unix.MOUNT_ATTR_NODEV,
		unix.MS_NOSUID:      unix.MOUNT_ATTR_NOSUID,
		unix.MS_NOEXEC:      unix.MOUNT_ATTR_NOEXEC,
		unix.MS_NOATIME:     unix.MOUNT_ATTR_NOATIME,
		unix.MS_STRICTATIME: unix.MOUNT_ATTR_STRICTATIME,
		unix.MS_NODIRATIME:  unix.MOUNT_ATTR_NODIRATIME,
	} {
		if flags&ms != 0 {
			attr |= at
		}
	}
	return attr
}
