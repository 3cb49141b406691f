// Package unix is the part of golang.org/x/sys/unix that packages need which
// are built for every system: numbers of file types and of open flags, and the
// few calls on descriptors that os has no word for. On Linux each name is
// x/sys/unix's own. Elsewhere a flag that the system lacks is 0, and a call
// that it lacks fails, so that its callers' usual handling of EOPNOTSUPP and
// EPERM holds. File types have the numbers of Linux everywhere.
package unix
