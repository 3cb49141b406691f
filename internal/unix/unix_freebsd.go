package unix

import "golang.org/x/sys/unix"

// EUCLEAN is the nearest that the system has: an integrity check failed.
const EUCLEAN = unix.EINTEGRITY
