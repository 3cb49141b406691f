package unix

import "golang.org/x/sys/unix"

// EUCLEAN is the nearest that the system has.
const EUCLEAN = unix.EFTYPE
