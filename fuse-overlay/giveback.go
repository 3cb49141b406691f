package fuseoverlay

import (
	"runtime/debug"
	"time"
)

// giveBack returns memory to the system after many nodes were let go of: without
// requests nothing is allocated, so nothing is collected either, and what is
// collected is given back over minutes. Its owner's lock guards it.
type giveBack struct {
	timer *time.Timer
	ended bool
}

// manyFreed is how many nodes and names must have been let go of, about 8 MiB,
// and quiet how long none were since.
const (
	manyFreed = 1 << 15
	quiet     = time.Second
)

// soon gives memory back once it was not called for a while.
func (g *giveBack) soon() {
	switch {
	case g.ended:
	case g.timer == nil:
		g.timer = time.AfterFunc(quiet, debug.FreeOSMemory)
	default:
		g.timer.Reset(quiet)
	}
}

// stop ends it.
func (g *giveBack) stop() {
	if g.ended = true; g.timer != nil {
		g.timer.Stop()
	}
}
