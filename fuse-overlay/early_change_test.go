package fuseoverlay

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/plyfs/plyfs/internal/fusetest"
)

// TestEarlyWhereLayersChange: nothing is copied before it is asked for where the
// kernel is not to believe for good what it was told of layers, or where what is
// below may be the upper: it may be other by then.
func TestEarlyWhereLayersChange(t *testing.T) {
	t.Parallel()
	for name, prepare := range map[string]func(r *earlyRig) (dir string){
		"timeout": func(r *earlyRig) string {
			r.config.AttrTimeout = time.Second
			return r.lowers[0]
		},
		"upper": func(r *earlyRig) string {
			r.config.Upper = filepath.Join(r.lowers[0], "u")
			check(t, os.Mkdir(r.config.Upper, 0o755))
			r.config.Work = filepath.Join(r.lowers[0], "w")
			check(t, os.Mkdir(r.config.Work, 0o755))
			return r.config.Upper
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := &earlyRig{rig: newRig(t)}
			r.lowers = []string{filepath.Join(r.dir, "l")}
			r.config.Lower = r.lowers
			check(t, os.MkdirAll(r.lowers[0], 0o755))
			dir := prepare(r)
			fusetest.Must(t, "mkdir $1/d; for i in $(seq 10 29); do echo old >$1/d/f$i; done", dir)
			var err error
			r.o, err = newOverlay(r.config)
			check(t, err)
			r.o.earlyCopies.patient()
			r.ctx = asked{t.Context(), nil, 4711}
			top := r.o.root
			if name == "upper" {
				top, _, err = r.o.lookup(r.ctx, top, "u")
				check(t, err)
			}
			d, _, err := r.o.lookup(r.ctx, top, "d")
			check(t, err)
			files := r.list(d)
			for _, n := range files[:rowShort] {
				r.chmod(n)
			}
			a := &r.o.earlyCopies
			a.mu.Lock()
			staged := slices.Collect(maps.Values(a.early))
			a.mu.Unlock()
			for _, e := range staged {
				<-e.done
			}
			fusetest.Must(t, "for i in $(seq 10 29); do echo new >$1/d/f$i; done", dir)
			for _, n := range files[rowShort:] {
				r.chmod(n)
				if got := r.content(n); got != "new\n" {
					t.Fatalf("%s: %q", r.o.homeOf(n).name, got)
				}
			}
			check(t, r.o.close())
		})
	}
}
