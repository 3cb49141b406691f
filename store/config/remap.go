package config

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/idmap"
	"github.com/plyfs/plyfs/store"
)

// Remap is the ID map that layers get when nobody names another one.
type Remap struct {
	// UIDs, GIDs, User and Group are the settings as they were written.
	UIDs, GIDs, User, Group Value
	// Maps is what they mean; empty when none of them is set.
	Maps idmap.Maps
}

// AutoUserns are the settings of user namespaces that are allotted by
// themselves. Numbers that are not set are the manual page's.
type AutoUserns struct{ User, MinSize, MaxSize Value }

// maps are the settings as the store takes them. The schema saw that the
// numbers are such; one that is not set is zero.
func (a AutoUserns) maps() store.AutoMaps {
	m := store.AutoMaps{User: a.User.Text}
	m.MinSize, _ = strconv.Atoi(a.MinSize.Text)
	m.MaxSize, _ = strconv.Atoi(a.MaxSize.Text)
	return m
}

// remap settles the ID maps: remap-uids and remap-gids, each where it is set,
// else the subordinate IDs of remap-user and remap-group; of those two names
// the one that is missing is as the other.
func (l *loader) remap() (err error) {
	r := &l.c.Remap
	r.UIDs, r.GIDs = l.conf.value("options.remap-uids"), l.conf.value("options.remap-gids")
	r.User, r.Group = l.conf.value("options.remap-user"), l.conf.value("options.remap-group")
	if r.User.Text == "" {
		r.User = r.Group
	}
	if r.Group.Text == "" {
		r.Group = r.User
	}
	if r.User.Text != "" {
		if r.Maps.UIDs, err = subordinate(l.m.SubUID, r.User); err != nil {
			return err
		}
		if r.Maps.GIDs, err = subordinate(l.m.SubGID, r.Group); err != nil {
			return err
		}
	}
	if r.UIDs.Text != "" {
		if r.Maps.UIDs, err = ranges("remap-uids", r.UIDs); err != nil {
			return err
		}
	}
	if r.GIDs.Text != "" {
		if r.Maps.GIDs, err = ranges("remap-gids", r.GIDs); err != nil {
			return err
		}
	}
	return nil
}

func ranges(key string, v Value) ([]idmap.Range, error) {
	out, err := idmap.Parse(v.Text)
	if err != nil {
		return nil, errno.New(errno.ErrBadValue, "%s: the key %q: %w: write container:host:size, and more after commas", v.From, key, err)
	}
	return out, nil
}

// subordinate returns a map from 0 on of a name's ranges in subuid(5) or
// subgid(5), the lowest first.
func subordinate(path string, name Value) (_ []idmap.Range, err error) {
	f, err := os.Open(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: look up the subordinate IDs of %q: %w", name.From, name.Text, err)
	}
	var out []idmap.Range
	if err == nil {
		defer func() { err = errors.Join(err, f.Close()) }()
		lines := bufio.NewScanner(f)
		for lines.Scan() {
			if r, ok := subordinateLine(lines.Text(), name.Text); ok {
				out = append(out, r)
			}
		}
		if err := lines.Err(); err != nil {
			return nil, fmt.Errorf("%s: look up the subordinate IDs of %q: %s: %w", name.From, name.Text, path, err)
		}
	}
	if len(out) == 0 {
		return nil, errno.New(errno.ErrBadValue, "%s: %q has no subordinate IDs in %s: add a line %s:FIRST:COUNT, or name another user",
			name.From, name.Text, path, name.Text)
	}
	slices.SortFunc(out, func(a, b idmap.Range) int { return a.HostID - b.HostID })
	next := 0
	for i := range out {
		out[i].ContainerID = next
		next += out[i].Size
	}
	if err := idmap.Validate(out); err != nil {
		return nil, errno.New(errno.ErrBadValue, "%s: the subordinate IDs of %q in %s: %w", name.From, name.Text, path, err)
	}
	return out, nil
}

func subordinateLine(line, name string) (idmap.Range, bool) {
	fields := strings.Split(strings.TrimSpace(line), ":")
	if len(fields) != 3 || fields[0] != name {
		return idmap.Range{}, false
	}
	first, err := strconv.ParseUint(fields[1], 10, 32)
	if err != nil {
		return idmap.Range{}, false
	}
	size, err := strconv.ParseUint(fields[2], 10, 32)
	if err != nil || size == 0 {
		return idmap.Range{}, false
	}
	return idmap.Range{HostID: int(first), Size: int(size)}, true
}
