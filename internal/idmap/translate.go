package idmap

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// UnmappedError is returned for an ID that no range holds.
type UnmappedError struct {
	// Kind is "user" or "group", Side "container" or "host".
	Kind, Side string
	ID         int
}

// Error names the ID.
func (e *UnmappedError) Error() string {
	return fmt.Sprintf("the %s's %s ID %d is in none of the map's ranges", e.Side, e.Kind, e.ID)
}

// Empty tells whether m is the identity because it has no range.
func (m Maps) Empty() bool { return len(m.UIDs) == 0 && len(m.GIDs) == 0 }

// ToHost translates an owner from the container's side to the host's. The
// error is an *UnmappedError.
func (m Maps) ToHost(uid, gid int) (int, int, error) {
	u, ok := Translate(m.UIDs, uid)
	if !ok {
		return 0, 0, &UnmappedError{"user", "container", uid}
	}
	g, ok := Translate(m.GIDs, gid)
	if !ok {
		return 0, 0, &UnmappedError{"group", "container", gid}
	}
	return u, g, nil
}

// ToContainer is the inverse of ToHost.
func (m Maps) ToContainer(uid, gid int) (int, int, error) {
	u, ok := Inverse(m.UIDs, uid)
	if !ok {
		return 0, 0, &UnmappedError{"user", "host", uid}
	}
	g, ok := Inverse(m.GIDs, gid)
	if !ok {
		return 0, 0, &UnmappedError{"group", "host", gid}
	}
	return u, g, nil
}

// Root returns the host IDs of the container's root, 0 where it has none.
func (m Maps) Root() (uid, gid int) {
	u, _ := Translate(m.UIDs, 0)
	g, _ := Translate(m.GIDs, 0)
	return u, g
}

// Translate maps a container ID to the host's. An empty list is the identity.
func Translate(ranges []Range, id int) (int, bool) {
	if len(ranges) == 0 {
		return id, true
	}
	for _, r := range ranges {
		if id >= r.ContainerID && id-r.ContainerID < r.Size {
			return r.HostID + (id - r.ContainerID), true
		}
	}
	return 0, false
}

// Inverse maps a host ID to the container's. An empty list is the identity.
func Inverse(ranges []Range, id int) (int, bool) {
	if len(ranges) == 0 {
		return id, true
	}
	for _, r := range ranges {
		if id >= r.HostID && id-r.HostID < r.Size {
			return r.ContainerID + (id - r.HostID), true
		}
	}
	return 0, false
}

// Overflow is shown for an ID that no range holds (proc(5),
// /proc/sys/kernel/overflowuid).
const Overflow = 65534

// Shown is Inverse for stat(2): Overflow for an ID that no range holds.
func Shown(ranges []Range, id uint32) uint32 {
	if in, ok := Inverse(ranges, int(id)); ok {
		return uint32(in)
	}
	return Overflow
}

// Validate refuses ranges that are empty, leave 32 bits or overlap on either
// side, with a sentence.
func Validate(ranges []Range) error {
	for i, r := range ranges {
		if r.Size < 1 || r.ContainerID < 0 || r.HostID < 0 ||
			r.Size > math.MaxUint32 || r.ContainerID > math.MaxUint32-r.Size || r.HostID > math.MaxUint32-r.Size {
			return fmt.Errorf("the ID map range %s is empty or leaves the 32 bits of an ID", r)
		}
		for _, o := range ranges[:i] {
			if overlap(r.ContainerID, o.ContainerID, r.Size, o.Size) || overlap(r.HostID, o.HostID, r.Size, o.Size) {
				return fmt.Errorf("the ID map ranges %s and %s overlap", o, r)
			}
		}
	}
	return nil
}

func overlap(a, b, na, nb int) bool { return a < b+nb && b < a+na }

// Validate checks both maps.
func (m Maps) Validate() error {
	if err := Validate(m.UIDs); err != nil {
		return fmt.Errorf("user IDs: %w", err)
	}
	if err := Validate(m.GIDs); err != nil {
		return fmt.Errorf("group IDs: %w", err)
	}
	return nil
}

// String is `container:host:size`, the form that Parse reads.
func (r Range) String() string {
	return fmt.Sprintf("%d:%d:%d", r.ContainerID, r.HostID, r.Size)
}

// Parse reads ranges of the form `container:host:size`, several in one string
// separated by commas or white space.
func Parse(specs ...string) ([]Range, error) {
	var out []Range
	for _, spec := range specs {
		for _, f := range strings.FieldsFunc(spec, func(r rune) bool { return strings.ContainsRune(", \t\n", r) }) {
			r, err := parseOne(f)
			if err != nil {
				return nil, err
			}
			out = append(out, r)
		}
	}
	return out, Validate(out)
}

func parseOne(s string) (Range, error) {
	parts := strings.Split(s, ":")
	var n [3]int
	ok := len(parts) == 3
	for i := 0; ok && i < 3; i++ {
		v, err := strconv.ParseUint(parts[i], 10, 32)
		n[i], ok = int(v), err == nil
	}
	if !ok {
		return Range{}, fmt.Errorf("the ID map %q is not of the form container:host:size", s)
	}
	return Range{n[0], n[1], n[2]}, nil
}
