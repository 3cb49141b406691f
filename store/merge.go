package store

import "slices"

// merge puts what the own files (main, volatile) and the additional stores
// hold together into one set, each ID and each name once. Of two records in
// own files the later one counts, as the peers have it: the earlier loses the
// name, or, with the same ID, is kept in the file and not shown. Additional
// stores come after the own files, in their order.
func merge[R record[R]](kind Kind, own [numFiles]parsed[R], shadows []parsed[R]) *set[R] {
	size := 0
	for _, p := range own {
		size += len(p.list)
	}
	for _, p := range shadows {
		size += len(p.list)
	}
	m := &merger[R]{set: newSet[R](kind, size), taken: make(map[string]bool)}
	m.own(own)
	for _, p := range shadows {
		m.shadow(p.list)
	}
	m.set.sorted()
	return m.set
}

type merger[R record[R]] struct {
	set   *set[R]
	taken map[string]bool // names that have their owner
}

func (m *merger[R]) own(files [numFiles]parsed[R]) {
	type place struct {
		r    R
		file int
	}
	var all []place
	last := make(map[string]int)
	for file, p := range files {
		m.set.opaque[file] = p.opaque
		for _, r := range p.list {
			last[r.id()] = len(all)
			all = append(all, place{r, file})
		}
	}
	kept := make([]R, 0, len(all))
	for i, pl := range slices.Backward(all) {
		if last[pl.r.id()] != i {
			m.set.opaque[pl.file] = append(slices.Clip(m.set.opaque[pl.file]),
				opaque{raw: pl.r.m().raw, id: pl.r.id(), why: "a later record has the same ID"})
			continue
		}
		kept = append(kept, m.claim(pl.r))
	}
	for _, r := range slices.Backward(kept) {
		m.set.grow(r)
	}
}

func (m *merger[R]) shadow(list []R) {
	for _, r := range list {
		if _, ok := m.set.byID[r.id()]; !ok {
			m.set.grow(m.claim(r))
		}
	}
}

// claim takes the record's names; names that others have are trimmed.
func (m *merger[R]) claim(r R) R {
	names := r.names()
	free := make([]string, 0, len(names))
	for _, n := range names {
		if !m.taken[n] {
			m.taken[n] = true
			free = append(free, n)
		}
	}
	if len(free) == len(names) {
		return r
	}
	r = r.clone()
	*r.fields().names = free
	r.m().trimmed = true
	return r
}
