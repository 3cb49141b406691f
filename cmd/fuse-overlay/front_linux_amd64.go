package main

// What entry found out, before the runtime began: afterwards nobody writes it.
//
//nolint:gochecknoglobals,unused // written by entry, in assembly, which has no other place
var (
	frontSecond int64    // the process that was forked, in the one that waited for it; 0: none, or ready
	frontTold   int64    // 1: a signal told that one to end
	frontBehind int64    // 1: this is the one that was forked
	frontPipe   [2]int32 // which tells by the second of these that it is ready

	frontMask, frontOld uint64
	frontPoll           [2]struct {
		fd     int32
		events uint32
	}
	frontInfo [128]byte
)

// entry is what the program is linked to begin with (-E main.entry).
//
//nolint:unused // the linker's
func entry()

// fork is what entry made of this process.
func fork() forked {
	return forked{second: int(frontSecond), told: frontTold != 0, behind: frontBehind != 0, pipe: int(frontPipe[1])}
}
