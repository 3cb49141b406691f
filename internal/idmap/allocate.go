package idmap

import "slices"

// Span is a run of host IDs.
type Span struct{ First, Size int }

// Allocate maps container IDs 0 to size-1 to host IDs of available that no span
// of used holds: to one run where one is long enough (the first such), else to
// the first runs there are. ok is false when there are too few. The spans may
// overlap and come in any order.
func Allocate(available, used []Span, size int) (ranges []Range, ok bool) {
	free := subtract(union(available), union(used))
	if size <= 0 {
		return nil, false
	}
	for _, s := range free {
		if s.Size >= size {
			return []Range{{ContainerID: 0, HostID: s.First, Size: size}}, true
		}
	}
	next := 0
	for _, s := range free {
		n := min(s.Size, size-next)
		ranges = append(ranges, Range{ContainerID: next, HostID: s.First, Size: n})
		if next += n; next == size {
			return ranges, true
		}
	}
	return nil, false
}

// union sorts spans and joins those that touch.
func union(spans []Span) []Span {
	sorted := slices.DeleteFunc(slices.Clone(spans), func(s Span) bool { return s.Size <= 0 })
	slices.SortFunc(sorted, func(a, b Span) int { return a.First - b.First })
	var out []Span
	for _, s := range sorted {
		if n := len(out); n > 0 && s.First <= out[n-1].First+out[n-1].Size {
			out[n-1].Size = max(out[n-1].Size, s.First+s.Size-out[n-1].First)
			continue
		}
		out = append(out, s)
	}
	return out
}

// subtract takes b from a; both are unions.
func subtract(a, b []Span) []Span {
	var out []Span
	for _, s := range a {
		for _, u := range b {
			if u.First+u.Size <= s.First || u.First >= s.First+s.Size {
				continue
			}
			if u.First > s.First {
				out = append(out, Span{s.First, u.First - s.First})
			}
			end := s.First + s.Size
			s.First = min(u.First+u.Size, end)
			s.Size = end - s.First
		}
		if s.Size > 0 {
			out = append(out, s)
		}
	}
	return out
}
