package fuseoverlay

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/internal/fusetest"
)

// The kernel reads ahead what the server says, with either transport, where it may
// say so, and reads what is there.
func TestReadAhead(t *testing.T) {
	for _, goFuse := range []bool{false, true} {
		r := newRig(t, "seq 1000000 >f")
		r.config.GoFuse = goFuse
		r.start()
		fusetest.Must(t, `cmp $1 $2; tail -c +100001 $1 >$3; tail -c +100001 $2 | cmp - $3`, r.mount+"/f", r.lowers[0]+"/f", r.dir+"/part")
		var st unix.Stat_t
		check(t, unix.Stat(r.mount, &st))
		path := fmt.Sprintf("/sys/class/bdi/%d:%d/read_ahead_kb", unix.Major(st.Dev), unix.Minor(st.Dev))
		text, err := os.ReadFile(path)
		if err == nil {
			err = unix.Access(path, unix.W_OK)
		}
		if err != nil {
			t.Skipf("no read-ahead can be set here: %v", err)
		}
		if got := strings.TrimSpace(string(text)); got != fmt.Sprint(readAhead) {
			t.Errorf("go-fuse %v: %s KiB", goFuse, got)
		}
	}
}
