// Package lockfile holds the locks that plyfs shares with the containers
// tools, and the last-writer tokens kept in the locked files.
//
// # Locks
//
// The tools lock whole files with classic POSIX locks (fcntl F_SETLKW). Ours
// are open-file-description locks on the same range: the kernel makes the two
// kinds conflict, and ours are not lost when some other descriptor of the file
// is closed. Every acquisition opens the file anew, so that two goroutines
// conflict as two processes do, and checks afterwards that the path still
// names the locked file (the run root may be removed under our feet). The
// kernel detects no deadlock among such locks, so they are taken by polling
// with back-off until the context ends or the timeout passes; goroutines of
// one process queue first-in first-out before they poll.
//
// The BSDs and darwin have no such locks, but their flock(2) locks belong to
// the open file too and conflict with POSIX locks; windows has LockFileEx, on a
// byte far behind the token, which must stay readable (lock_*.go).
//
// # Tokens
//
// A writer that changes what a lock guards puts a fresh token of 64 bytes at
// offset 0 of the lock file; readers reload when the token is not the one that
// they remember. Layout, as the tools of 2022 and later write it (readers only
// ever compare):
//
//	0       8       16   20                       64
//	| nanos | count | pid |      44 random bytes   |
//	  u64le   u64le  u32le
//
// # Side records
//
// The kernel knows no process for open-file-description locks, so a holder of
// a write lock leaves `<file name>.holder` in Options.SideDir: JSON of pid,
// since, what. It is advice for people (`/locks`, time-out messages), is never
// synced, may be stale, and is believed only while the file is locked and the
// process lives.
//
// Lock order inside the package: File.queue (a semaphore) → the file's lock →
// File.mu (guards the descriptor kept for reading tokens; never held while
// waiting).
package lockfile
