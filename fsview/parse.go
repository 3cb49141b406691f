package fsview

import (
	"bytes"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/idmap"
)

// showName returns a name as a line of a text file. A name with control bytes,
// which only other programs make, is shown encoded.
func showName(name string) string {
	if strings.IndexFunc(name, func(r rune) bool { return r < 0x20 || r == 0x7f }) < 0 {
		return name
	}
	return Encode(name)
}

// parseNames reads a list of names, one a line. A line that shows one of the
// names that the object has means that one, so that what is shown is accepted.
func parseNames(v []byte, have []string) ([]string, error) {
	shown := map[string]string{}
	for _, n := range have {
		shown[showName(n)] = n
	}
	var names []string
	for _, l := range textLines(v) {
		if n, ok := shown[l]; ok {
			names = append(names, n)
			continue
		}
		if err := checkName(l); err != nil {
			return nil, err
		}
		names = append(names, l)
	}
	return names, nil
}

// textLines splits a text at its newlines; a missing last one is forgiven.
func textLines(v []byte) []string {
	if len(v) == 0 {
		return nil
	}
	return strings.Split(string(bytes.TrimSuffix(v, []byte("\n"))), "\n")
}

// parseValue reads a text of one value, which may be empty.
func parseValue(v []byte) (string, error) {
	l := textLines(v)
	switch {
	case len(l) == 0:
		return "", nil
	case len(l) > 1:
		return "", errno.New(errno.ErrBadValue, "one line was expected, %d were written: write one value", len(l))
	}
	if !utf8.ValidString(l[0]) || strings.ContainsRune(l[0], 0) {
		return "", errno.New(errno.ErrBadValue, "%q is not text in UTF-8", clip(l[0]))
	}
	return l[0], nil
}

// parseMetadata checks what is to be an object's metadata.
func parseMetadata(v []byte) (string, error) {
	if !utf8.Valid(v) {
		return "", errno.New(errno.ErrBadValue, "metadata must be valid UTF-8, as the store's records are JSON: keep bytes in bigdata/")
	}
	return string(v), nil
}

// parseBool reads `true` or `false`, also 1 and 0.
func parseBool(v []byte) (bool, error) {
	s, err := parseValue(v)
	if err != nil {
		return false, err
	}
	switch s {
	case "true", "1":
		return true, nil
	case "false", "0", "":
		return false, nil
	}
	return false, errno.New(errno.ErrBadValue, "%q is neither true nor false", clip(s))
}

// maxRanges is how many lines an ID map may have, as in the kernel.
const maxRanges = 340

// parseIDMap reads an ID map: `CONTAINER HOST SIZE` a line, as in
// /proc/PID/uid_map, or with colons between.
func parseIDMap(v []byte) ([]idmap.Range, error) {
	var m []idmap.Range
	for _, l := range textLines(v) {
		f := strings.Fields(strings.ReplaceAll(l, ":", " "))
		if len(f) != 3 {
			return nil, errno.New(errno.ErrBadValue, "%q is no line of an ID map: write `CONTAINER HOST SIZE`, three numbers", clip(l))
		}
		var n [3]int
		for i, s := range f {
			u, err := strconv.ParseUint(s, 10, 32)
			if err != nil {
				return nil, errno.New(errno.ErrBadValue, "%q in an ID map is not a number from 0 to 4294967295", clip(s))
			}
			n[i] = int(u)
		}
		if n[2] == 0 || n[0]+n[2] > 1<<32 || n[1]+n[2] > 1<<32 {
			return nil, errno.New(errno.ErrBadValue, "%q: the size must be at least 1 and the range must end before 4294967296", clip(l))
		}
		if len(m) == maxRanges {
			return nil, errno.New(errno.ErrBadValue, "an ID map has at most %d lines", maxRanges)
		}
		m = append(m, idmap.Range{ContainerID: n[0], HostID: n[1], Size: n[2]})
	}
	return m, overlaps(m)
}

func overlaps(m []idmap.Range) error {
	for i, a := range m {
		for _, b := range m[:i] {
			if a.ContainerID < b.ContainerID+b.Size && b.ContainerID < a.ContainerID+a.Size ||
				a.HostID < b.HostID+b.Size && b.HostID < a.HostID+a.Size {
				return errno.New(errno.ErrBadValue, "the ID map's ranges %d %d %d and %d %d %d overlap", b.ContainerID, b.HostID, b.Size, a.ContainerID, a.HostID, a.Size)
			}
		}
	}
	return nil
}

// showIDMap is the inverse of parseIDMap.
func showIDMap(m []idmap.Range) []byte {
	var b []byte
	for _, r := range m {
		b = strconv.AppendInt(b, int64(r.ContainerID), 10)
		b = append(b, ' ')
		b = strconv.AppendInt(b, int64(r.HostID), 10)
		b = append(b, ' ')
		b = strconv.AppendInt(b, int64(r.Size), 10)
		b = append(b, '\n')
	}
	return b
}

func contains(list []string, s string) bool {
	for _, x := range list {
		if x == s {
			return true
		}
	}
	return false
}
