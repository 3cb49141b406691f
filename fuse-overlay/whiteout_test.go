package fuseoverlay

import (
	"errors"
	"strconv"
	"sync"
	"syscall"
	"testing"

	"github.com/plyfs/plyfs/internal/safefs"
)

// TestWhiteoutsRunOut: when the whiteout that others are links of can have no more,
// many who need one at the same time all get one.
func TestWhiteoutsRunOut(t *testing.T) {
	t.Parallel()
	needRoot(t)
	stage, err := safefs.OpenRoot(t.TempDir())
	check(t, err)
	t.Cleanup(func() { check(t, stage.Close()) })
	w := &work{stage: stage}
	full, made := w.dirOf(t, "full"), w.dirOf(t, "made")
	check(t, w.whiteout(full, "0"))
	for i := 1; ; i++ {
		err := w.stage.Link(sharedWh, full, strconv.Itoa(i))
		if errors.Is(err, syscall.EMLINK) {
			break
		}
		check(t, err)
		if i > 1<<17 {
			t.Skip("here a file has as many links as anybody wants")
		}
	}
	const rounds, together = 300, 32
	for i := range rounds {
		check(t, full.Rename(strconv.Itoa(i), w.stage, sharedWh, 0))
		var all sync.WaitGroup
		for k := range together {
			all.Go(func() {
				if err := w.whiteout(made, strconv.Itoa(i*together+k)); err != nil {
					t.Errorf("round %d: %v", i, err)
				}
			})
		}
		all.Wait()
	}
}

// dirOf makes a directory in work.
func (w *work) dirOf(t *testing.T, name string) *safefs.Dir {
	t.Helper()
	check(t, w.stage.Mkdir(stagePrefix+name, 0o700))
	d, err := w.stage.OpenDir(stagePrefix + name)
	check(t, err)
	t.Cleanup(func() { check(t, d.Close()) })
	return d
}
