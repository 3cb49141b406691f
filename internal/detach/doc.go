// Package detach puts a program into the background and tells its caller
// when it is ready, so that `plyfs mount` returns once there is a mount, or
// with the reason why not.
//
// The program runs itself again, in a session of its own, with the same
// arguments and one more descriptor: a pipe whose number is in PLYFS_READY.
//
//	first process                    second process
//	Start: pipe, run                 Here: finds the pipe
//	  reads the pipe …                 … does its work, writes its errors to
//	                                   the standard error that it shares
//	  a byte comes: status 0         Ready: lets go of standard error, writes
//	  or end of file: waits, and       the byte, closes
//	  returns the other's status     (or ends with a status)
//
// (Of a second process that was made otherwise, With is what Here is for this one.)
//
// Ended before the byte, the first process sends SIGTERM to the second, which
// undoes its work; killed, it leaves the second one, which cannot tell and
// goes on: the mount is then there, as asked.
package detach
