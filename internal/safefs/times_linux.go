//go:build portable

package safefs

import (
	"syscall"
	"time"
)

func times(st *syscall.Stat_t) (atime, ctime, btime time.Time) {
	return time.Unix(st.Atim.Unix()), time.Unix(st.Ctim.Unix()), time.Time{}
}
