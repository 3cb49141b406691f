package fuseoverlay

import (
	"errors"

	"github.com/plyfs/plyfs/internal/safefs"
)

// walk calls f with p's directory and with every directory below it that f names,
// each after the one above it. It does not recurse, and opens by the cache: how
// deep a layer is, is its maker's to choose. It goes on after errors.
func (p *place) walk(f func(d *safefs.Dir, below func(name string, st *safefs.Stat)) error) error {
	var failed error
	type step struct {
		at   *place
		left bool // all below is done
	}
	for todo := []step{{at: p}}; len(todo) > 0; {
		s := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if s.left {
			p.tree.cache.drop([]*place{s.at})
			continue
		}
		if s.at != p {
			todo = append(todo, step{s.at, true})
		}
		failed = errors.Join(failed, s.at.with(func(d *safefs.Dir) error {
			return f(d, func(name string, st *safefs.Stat) {
				h := hit{spot: spot{s.at, name}, st: *st}
				todo = append(todo, step{at: h.enter()})
			})
		}))
	}
	return failed
}
