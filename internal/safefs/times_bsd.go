//go:build unix && !linux

package safefs

import (
	"syscall"
	"time"
)

func times(st *syscall.Stat_t) (atime, ctime, btime time.Time) {
	return time.Unix(st.Atimespec.Unix()), time.Unix(st.Ctimespec.Unix()), time.Unix(st.Birthtimespec.Unix())
}
