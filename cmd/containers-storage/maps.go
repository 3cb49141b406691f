package main

import (
	"errors"
	"fmt"

	"github.com/moby/sys/user"
	"github.com/spf13/pflag"

	"github.com/plyfs/plyfs/internal/idmap"
)

// mapFlags are the flags that say what IDs a new layer or container has.
type mapFlags struct {
	uid, gid         string
	subuid, subgid   string
	hostUID, hostGID bool
}

func (m *mapFlags) addTo(f *pflag.FlagSet) {
	f.StringVar(&m.uid, "uidmap", "", "map user IDs: `CONTAINER:HOST:SIZE`, several separated by commas")
	f.StringVar(&m.gid, "gidmap", "", "map group IDs: `CONTAINER:HOST:SIZE`, several separated by commas")
	f.StringVar(&m.subuid, "subuidmap", "", "map user IDs to the subordinate ones of `USER` in /etc/subuid")
	f.StringVar(&m.subgid, "subgidmap", "", "map group IDs to the subordinate ones of `GROUP` in /etc/subgid")
	f.BoolVar(&m.hostUID, "hostuidmap", false, "map no user IDs, whatever the parent does")
	f.BoolVar(&m.hostGID, "hostgidmap", false, "map no group IDs, whatever the parent does")
}

// given tells that some flag was used.
func (m *mapFlags) given() bool { return *m != mapFlags{} }

// maps returns what the flags ask for; what they leave open is as in inherit.
func (m *mapFlags) maps(inherit idmap.Maps) (idmap.Maps, error) {
	if m.hostUID && m.uid != "" {
		return idmap.Maps{}, errors.New("host uid map specified along with UID mapping: give --hostuidmap or --uidmap")
	}
	if m.hostGID && m.gid != "" {
		return idmap.Maps{}, errors.New("host gid map specified along with GID mapping: give --hostgidmap or --gidmap")
	}
	out := inherit
	if m.hostUID {
		out.UIDs = nil
	}
	if m.hostGID {
		out.GIDs = nil
	}
	if err := m.subordinate(&out); err != nil {
		return out, err
	}
	for _, side := range []struct {
		kind, text string
		to         *[]idmap.Range
	}{{"uid", m.uid, &out.UIDs}, {"gid", m.gid, &out.GIDs}} {
		if side.text == "" {
			continue
		}
		ranges, err := idmap.Parse(side.text)
		if err != nil {
			return out, fmt.Errorf(`initializing ID mappings: %s setting is malformed expected ["uint32:uint32:uint32"]: [%q]: %w`, side.kind, side.text, err)
		}
		*side.to = ranges
	}
	return out, out.Validate()
}

// subordinate sets the maps that --subuidmap and --subgidmap ask for; each
// stands for the other one where that is not given.
func (m *mapFlags) subordinate(out *idmap.Maps) error {
	uid, gid := m.subuid, m.subgid
	if uid == "" {
		uid = gid
	}
	if gid == "" {
		gid = uid
	}
	if uid == "" {
		return nil
	}
	var err error
	if out.UIDs, err = subordinateRanges("/etc/subuid", "subuid", "user", uid); err != nil {
		return err
	}
	out.GIDs, err = subordinateRanges("/etc/subgid", "subgid", "group", gid)
	return err
}

func subordinateRanges(file, what, kind, name string) ([]idmap.Range, error) {
	subs, err := user.ParseSubIDFileFilter(file, func(s user.SubID) bool { return s.Name == name })
	if err != nil {
		return nil, fmt.Errorf("the subordinate IDs of %s: %w", name, err)
	}
	if len(subs) == 0 {
		return nil, fmt.Errorf("no %s ranges found for %s %q in %s", what, kind, name, file)
	}
	var out []idmap.Range
	next := 0
	for _, s := range subs {
		out = append(out, idmap.Range{ContainerID: next, HostID: int(s.SubID), Size: int(s.Count)})
		next += int(s.Count)
	}
	return out, nil
}
