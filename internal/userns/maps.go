package userns

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// Range maps Size IDs from Inside on, as this namespace numbers them, to those
// from Outside on of its parent.
type Range struct{ Inside, Outside, Size uint32 }

// Maps are the ID maps of a user namespace.
type Maps struct{ UIDs, GIDs []Range }

// overflow is what the kernel shows for an ID that is not mapped
// (/proc/sys/kernel/overflowuid's default).
const overflow = 65534

// Unmapped is what FromParent returns for an ID that this namespace does not
// have: one that no namespace maps, so that chown(2) refuses it with EINVAL.
const Unmapped = ^uint32(0) - 1

// Current returns the maps of this process's namespace. In the initial one
// they are the identity.
func Current() (Maps, error) {
	u, err := readMap("/proc/self/uid_map")
	if err != nil {
		return Maps{}, err
	}
	g, err := readMap("/proc/self/gid_map")
	if err != nil {
		return Maps{}, err
	}
	return Maps{UIDs: u, GIDs: g}, nil
}

func readMap(path string) (_ []Range, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read the ID map: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return parseMap(f)
}

// parseMap reads lines "inside outside size" (user_namespaces(7)).
func parseMap(r io.Reader) ([]Range, error) {
	var out []Range
	sc := bufio.NewScanner(r)
	for sc.Scan() {
		if strings.TrimSpace(sc.Text()) == "" {
			continue
		}
		var m Range
		if n, err := fmt.Sscanf(strings.Join(strings.Fields(sc.Text()), " "), "%d %d %d", &m.Inside, &m.Outside, &m.Size); n != 3 {
			return nil, fmt.Errorf("read the ID map: %q: %w", sc.Text(), err)
		}
		out = append(out, m)
	}
	return out, sc.Err()
}

// ToParent returns the parent namespace's numbers of two IDs of this one; an
// ID without one becomes 65534, as the kernel shows it.
func (m Maps) ToParent(uid, gid uint32) (uint32, uint32) {
	return out(m.UIDs, uid), out(m.GIDs, gid)
}

// FromParent is the inverse of ToParent; an ID without one becomes Unmapped,
// never 65534, which may well be a container's nobody here. ^0, which means "no change" to
// chown(2), stays what it is.
func (m Maps) FromParent(uid, gid uint32) (uint32, uint32) {
	return in(m.UIDs, uid), in(m.GIDs, gid)
}

func out(rs []Range, id uint32) uint32 {
	for _, r := range rs {
		if id >= r.Inside && id-r.Inside < r.Size {
			return r.Outside + (id - r.Inside)
		}
	}
	return overflow
}

func in(rs []Range, id uint32) uint32 {
	if id == ^uint32(0) {
		return id
	}
	for _, r := range rs {
		if id >= r.Outside && id-r.Outside < r.Size {
			return r.Inside + (id - r.Outside)
		}
	}
	return Unmapped
}
