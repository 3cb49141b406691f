package fsview_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// TestFollowersAreIndependent: of several readers each gets every line, in
// order, whether it reads all the time, now and then, or when all is over; one that
// does not read delays nobody. One that is left behind by more than what is kept
// is told of the gap.
func TestFollowersAreIndependent(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "vfs")
	const changes = 60
	var readers [3]*file
	for i := range readers {
		readers[i] = w.open("events.follow", os.O_RDONLY)
	}
	var got [3]strings.Builder
	buf := make([]byte, 64<<10)
	take := func(i int) {
		t.Helper()
		n, err := readers[i].h.ReadAt(w.ctx, buf, 0)
		readers[i].ok(err)
		got[i].Write(buf[:n])
	}
	for i := range changes {
		w.mkdir(fmt.Sprintf("layers/l%d", i))
		take(0)
		if i%20 == 19 {
			take(1)
		}
	}
	all := w.read("events")
	for i := range readers {
		for got[i].Len() < len(all) {
			take(i)
		}
		w.same(got[i].String(), all, fmt.Sprintf("what reader %d was told", i))
		readers[i].ok(readers[i].release())
	}
}
