// Package fusewire mounts a fuse.RawFileSystem (New), or takes a mount that is there
// (Attach), and serves it, and answers, while
// one program asks one thing after the other, on that program's processor.
// Decoding is go-fuse's (ProtocolServer), but for the requests that there are most
// of; what is here is mounting, reading, threads and waiting.
//
// # Why
//
// A request costs two wake-ups: the program wakes a thread of the server, which
// wakes the program. The kernel wakes either on an idle processor if there is
// one, which takes an interrupt to another processor; in a virtual machine an
// exit to the host on both sides, more than most requests themselves. When both
// take turns on one processor there is none, and they do not work at the same
// time anyway. The server cannot move the program. But a processor that has only
// threads of SCHED_IDLE counts as idle when the kernel looks where to wake one
// (sched(7); select_idle_sibling in the kernel), so a thread of that policy that
// is bound to where the program ran last has the program woken where it is
// itself, and gives way to it at once. An untar took half the time (docs/adr/0060).
//
// Such a thread hardly runs while others of its scheduling group want its
// processor, and an ordinary user's can never leave SCHED_IDLE. So this is a
// state for the length of a dialogue, and never at rest:
//
//	apart ──32 requests in a row of one thread, quickly──▶ dialogue
//	dialogue ──nothing is asked for two ticks, others ask too, a request takes
//	           long, or the talker does not get its processor──▶ apart
//
// # Files
//
//	serve.go    Server: readers, answers, the end      talk.go   the talker
//	crowd.go    many programs at once                  splice.go large READs
//	kernel.go   opcodes, notices, backing files        guard.go  the guard
//	mount.go    mount(2), fusermount3                  threads.go  policies, processors
//	inplace.go  what is decoded here                   pour.go   large WRITEs
//	hidden.go   a mount that is seen when all is ready  stream.go READs in rows
//
// # Apart
//
// Up to three goroutines wait in read(2) on the descriptor, each handles what it
// read and answers. Whoever reads and leaves nobody waiting starts another, so
// a slow request never holds up others; more than three do not wait but end.
// (After a FORGET, which has no answer, nobody is started: a flood of those is
// taken by one.)
//
// # A crowd
//
// Where many programs ask at once, three readers wake each other for nothing: each
// request that comes while one is at work wakes another, of which there are two
// processors for all of them and the programs. So on no more processors than two, but for an attached server
// (whose changes may last), one reader answers alone, while requests come quickly (64 in 20 ms) and from one
// thread and another (16 of them). It is an ordinary thread: it has its turn like
// the programs.
//
//	apart ──row of many, no guard──▶ one alone ──guard, or a dialogue──▶ apart
//
// The others take the one request more that they wait for and end. A guard looks
// each tick, and ends it when the reader is at one request for long, or answers
// fewer than 100 while more is asked (a disk is waited for, or something else wants
// the processors; then there is a pause, doubling), or when it is one thread that
// asks, or none. Requests that wait by nature are given to other threads. Who reads
// alone is in its loop as long as it is named so: whoever leaves the loop takes its
// name away and then sees to it that somebody reads, and so does the guard.
//
// # Large READs
//
// of a filesystem that can name the file that has the data (Files) are answered
// with splice(2): the file's pages go through a pipe, with the header before them, and
// are copied once, by the kernel. Pipes
// that are not empty after an error are closed. Without pipes (an ordinary user's
// share of them is bounded), or where the file's filesystem has no splice, READ is
// what it is for all others.
//
// The header is written first, for all that was asked; at the end of a file, where there
// is less, it is taken out again, and what is there moved behind the right one.
//
// # Large READs in a row
//
// Of a file that one thread reads the kernel asks for the next part while the program
// has the one before: two processors are enough for it and one reader, a second reader
// would only take the program's. So after 16 large READs of one thread, quickly one
// after the other, one reader answers alone as in a crowd, under the same guard (for
// which 16 KiB are a request, of another thread than the one before), and before it
// sleeps it looks for 50 µs whether more is asked: a wake-up costs both sides as much. When
// that was in vain it does not look after the next READ, the next three, and so on, up to 63.
//
// # Large WRITEs
//
// come in rows, one after the other, and the program waits for each. So after one
// the reader has its next request come through a pipe (splice(2) of the connection):
//
//	1 splice /dev/fuse → pipe: the kernel's own pages, not copied
//	2 read the header. What is no large WRITE is read whole, and the next request is read
//	3 the filesystem does all that it does before a write, and splices pipe → file,
//	  at once or by pieces (Sinks): the data is copied once, by the kernel
//	4 the answer, with as many bytes as were written
//
// A filesystem that does not take the data (the file is to be copied up; its own
// filesystem has no splice) has taken nothing: the pipe is read into the buffer, and
// the WRITE is carried out like all others. What is left in a pipe after 3 is closed
// with it. The kernel loses a request for which a pipe has no room, so a pipe must have
// it for the largest there can be, or none is used: data of 512 KiB, a header's page
// and one more fit into what an ordinary user may have, 1 MiB. Data of O_DIRECT would be
// copied into the pipe, so it is read. WRITEs do not end a dialogue: there is one at
// a time.
//
// # What is decoded here
//
// go-fuse makes a kilobyte of memory for each request, and takes 1.2 µs. What untars, copies, walks
// and removals consist of (LOOKUP, FORGET, GETATTR, SETATTR, MKNOD, MKDIR, UNLINK, RMDIR, RENAME,
// READ, WRITE, COPY_FILE_RANGE, and GETXATTR, LISTXATTR, SETXATTR) is decoded where it was read and answered
// where the answer is written from, with no memory but for names: 0.03 µs. Whatever is
// not as it should be (too short, a name without its end, an extension, more asked for
// than there is room) is left to go-fuse, which refuses it or not. A test has both
// answer the same requests. The filesystem may keep none of the memory it is given
// after it has answered. After Attach all is go-fuse's, whose filesystems of nodes
// keep contexts.
//
// # The talker
//
// One goroutine, begun with the first dialogue, on a thread of its own, which
// nobody else ever runs on and which ends with it: that it stays SCHED_IDLE is
// no harm. It reads a descriptor of its own (FUSE_DEV_IOC_CLONE), which does not
// wait: when nothing is there it looks where the program is, and polls.
//
//	parked ──asked: a row is full, no guard──▶ called ──talker: idle, CAS──▶ on
//	called, on ──guard──▶ ended ──talker, when it is there──▶ parked
//
// While it is on, readers that have answered end; the up to three that wait
// each take one more. Everything is a CAS of one word; whoever steps back
// looks once more whether somebody reads.
//
// # The guard
//
// It is an ordinary goroutine, there for one dialogue: begun before the talker
// is called, so that no moment of a dialogue is without. Every tick (10 ms) it
// looks, and at the end it
//
//	1 takes the turn (on → ended)      2 starts a reader if none waits
//	3 sets the pause                   4 lifts the talker: all processors, and
//	                                     SCHED_NORMAL where that is allowed
//	                                     (CAP_SYS_NICE, RLIMIT_NICE)
//
// The talker "does not get its processor" when it waited for it half of the tick
// (schedstat), answered little, and a request is in hand or unread. Then there is
// a pause, twice as long each time: 50 ms to 10 s, or 1 s to a minute where the
// talker cannot be lifted. At rest there is no guard: an idle mount uses no
// processor time.
//
// # The runtime's monitor
//
// (sysmon) looks at the runtime's processors each 20 µs, and less often after a
// millisecond in which there was nothing to do, down to once in 10 ms. But a goroutine
// that was not scheduled for 10 ms, also one that is in system calls, is something to
// do: its thread gets a signal, what it runs on is taken away, and the monitor looks
// each 20 µs again. It then wakes up 4,000 times a second, each time on a processor
// where the program would be woken else, and the talker has to follow. So the
// talker lets itself be scheduled a bit more often than that, when it would
// wait anyway, and the guard waits by the runtime's timers. (That hands the talker from
// thread to thread and back, some 0.1 ms; it is still bound to its own.)
//
// # What can be lost
//
// While programs of the server's own scheduling group want all processors, and a
// dialogue is on: a tick, and the guard's own wait for its turn; then others read.
// The request in hand, and whoever needs what it holds (locks; the runtime, when
// it stops the world for a collection) goes on when the talker is lifted. Where
// it cannot be, the talker has its share of SCHED_IDLE, a 300th of a busy
// processor: 0.1 s for a usual request (measured: 0.05 to 0.4, once 1.7 s with two
// such programs on the processor). So a talker that cannot be lifted gives what
// may need much of the processor to other threads at once: listing, and those of
// renaming and rmdir that the filesystem does not know to be brief (Foresight); and
// copying of data has a goroutine of its own in package fuseoverlay.
// A server in a session of its own (autogroup) or a control group of its own is in
// another scheduling group than the programs: there nothing is lost at all.
//
// # What may block
//
// All requests may. The talker gives away those that wait for a disk or a lock
// by nature (FSYNC, SETLKW, FALLOCATE, IOCTL); any other that takes longer than
// a tick ends the dialogue, others read, and no new dialogue begins until the
// talker is back. In dialogues system calls are ones that the runtime knows of, so
// it never waits for a talker that the program has preempted in one.
// COPY_FILE_RANGE is cut to 1 MiB there; programs ask for the rest.
//
// After Attach it also gives away all that may change something: of a container
// store that can be seconds of work, and processes that are started for it would
// have the policy and the processor of the talker for good. (A look-up that has to
// mount starts them by another thread: mounts.Do.)
//
// # The end
//
// read(2) says ENODEV when the mount is gone: Gone is closed, requests at work
// are interrupted (as INTERRUPT would), readers end, and when the talker has no
// request in hand either, Serve closes the descriptor and returns. It does not wait
// for the talker's thread: that may be SCHED_IDLE still, and others want the
// processor, while whoever serves has locks to give back. The talker closes its
// descriptor, and ends, when it gets there. A kill at any moment closes both too:
// the kernel answers ENOTCONN.
//
// # Interrupts
//
// An INTERRUPT may be read by another than the request, before that is at work.
// The kernel sends one again (EAGAIN) only if both came by one descriptor, so it
// is tried again here, for as long as a reader has the request.
//
// # What a dialogue needs
//
// Two processors, /proc with schedstat, and a process of SCHED_NORMAL (Able). Where the program is not
// visible in /proc (another PID namespace, hidepid) none begins.
//
// # Locks
//
//	talk.work (the talker, over its request; Serve, at the end)
//	  └ Server.mu (the readers) └ reader.own.mu, looker.mu, splicer.mu
//	Server.closing (read for a notice, written for the descriptor's close)
//	hidden.mu (the mount comes into its place, or is ended: move_mount(2) and close under it)
//
// All but the first are leaves, none held over a request.
package fusewire
