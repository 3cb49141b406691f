package store

import (
	"maps"
	"slices"
	"strings"
	"time"
)

// difference lists what changed between two states: what was deleted, what
// was created, then changes, kind by kind, and mounts. Records that are one
// and the same pointer cost nothing.
func difference(old, now *state) []Event {
	at := time.Now().UTC()
	var out []Event
	out = diffParts(out, old.layers, now.layers, at)
	out = diffParts(out, old.images, now.images, at)
	out = diffParts(out, old.containers, now.containers, at)
	out = diffMounts(out, old, now, at)
	return out
}

func diffParts[R record[R]](out []Event, was, is *part[R], at time.Time) []Event {
	if was == is {
		return out
	}
	old, now := was.records(), is.records()
	for _, r := range old.list {
		if _, ok := now.byID[r.id()]; !ok {
			out = append(out, Event{Time: at, Kind: now.kind, Op: OpDelete, ID: r.id(), Names: r.names()})
		}
	}
	for i, r := range now.list {
		if i < len(old.list) && old.list[i] == r {
			continue
		}
		o, ok := old.byID[r.id()]
		switch {
		case !ok:
			out = append(out, Event{Time: at, Kind: now.kind, Op: OpCreate, ID: r.id(), Names: r.names()})
		case o != r:
			if f := changedFields(o, r); len(f) > 0 {
				out = append(out, Event{Time: at, Kind: now.kind, Op: OpChange, ID: r.id(), Names: r.names(), Fields: f})
			}
		}
	}
	return out
}

// changedFields returns the JSON names of the members in which two records of
// one ID differ, sorted. It compares what is in the files, and names as they
// are shown.
func changedFields(a, b object) []string {
	ma, mb := members(a.m().raw), members(b.m().raw)
	changed := make(map[string]bool)
	for k, v := range ma {
		if mb[k] != v {
			changed[k] = true
		}
	}
	for k := range mb {
		if _, ok := ma[k]; !ok {
			changed[k] = true
		}
	}
	if slices.Equal(a.names(), b.names()) {
		delete(changed, "names")
	} else {
		changed["names"] = true
	}
	return slices.Sorted(maps.Keys(changed))
}

func members(raw string) map[string]string {
	out := make(map[string]string)
	p := scanner{s: raw}
	// A record's text was scanned before, so there is no error.
	_ = p.object(0, func(key, value string) error {
		if name, err := unquote(key); err == nil && value != "null" {
			out[strings.Clone(name)] = value
		}
		return nil
	})
	return out
}

func diffMounts(out []Event, old, now *state, at time.Time) []Event {
	for _, id := range slices.Sorted(maps.Keys(old.mounts.table)) {
		if _, ok := now.mounts.table[id]; !ok {
			out = append(out, mountEvent(now, OpUmount, id, at))
		}
	}
	for _, id := range slices.Sorted(maps.Keys(now.mounts.table)) {
		was, ok := old.mounts.table[id]
		switch is := now.mounts.table[id]; {
		case !ok:
			out = append(out, mountEvent(now, OpMount, id, at))
		case was != is:
			e := mountEvent(now, OpChange, id, at)
			e.Fields = []string{"mount"}
			out = append(out, e)
		}
	}
	return out
}

func mountEvent(st *state, op Op, id string, at time.Time) Event {
	e := Event{Time: at, Kind: KindLayer, Op: op, ID: id}
	if l := st.layers.records().byID[id]; l != nil {
		e.Names = l.Names
	}
	return e
}
