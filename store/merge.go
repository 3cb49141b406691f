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
	m := &merger[R]{set: newSet[R](kind, size)}
	m.own(own)
	for _, p := range shadows {
		m.shadow(p.list)
	}
	m.set.sorted()
	return m.set
}

type merger[R record[R]] struct{ set *set[R] }

// own takes the records from the last to the first, so that who comes first
// here counts.
func (m *merger[R]) own(files [numFiles]parsed[R]) {
	for file, p := range slices.Backward(files[:]) {
		m.set.opaque[file] = p.opaque
		for _, r := range slices.Backward(p.list) {
			if _, later := m.set.byID[r.id()]; later {
				m.set.opaque[file] = append(slices.Clip(m.set.opaque[file]),
					opaque{raw: r.m().raw, id: r.id(), why: "a later record has the same ID"})
				continue
			}
			m.set.grow(m.claim(r))
		}
	}
	slices.Reverse(m.set.list)
}

func (m *merger[R]) shadow(list []R) {
	for _, r := range list {
		if _, ok := m.set.byID[r.id()]; !ok {
			m.set.grow(m.claim(r))
		}
	}
}

// claim takes the record's names; those that have their owner are trimmed.
func (m *merger[R]) claim(r R) R {
	names := r.names()
	var free []string // when there is one that is not
	for i, n := range names {
		switch _, taken := m.set.byName[n]; {
		case !taken:
			m.set.byName[n] = r
			if free != nil {
				free = append(free, n)
			}
		case free == nil:
			free = append(make([]string, 0, len(names)), names[:i]...)
		}
	}
	if free == nil {
		return r
	}
	r = r.clone()
	*r.fields().names = free
	r.m().trimmed = true
	return r
}
