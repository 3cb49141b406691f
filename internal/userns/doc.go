// Package userns runs a program in a user namespace with the user's
// subordinate IDs, as rootless podman does, so that it can read and own what
// podman's containers own.
//
// A Go process has threads and cannot enter a user namespace; so a new process
// always starts there. Prepare finds out which way, Plan.Start goes it:
//
//	Join    podman's pause process is there: its user and mount namespaces are
//	        joined through util-linux's nsenter, so that mounts are shared
//	Map     a new user and mount namespace of the same form: ID 0 is the user,
//	        from 1 on the subordinate IDs, written by newuidmap and newgidmap
//	Single  no subordinate IDs: ID 0 is the user and there is no other
//
// A program that is exec'ed before its namespace has a map loses its
// capabilities for good. So a new namespace begins with a shell that waits for
// a line on a pipe; the maps are written, the line is sent, and the shell
// becomes the program:
//
//	Start   clone(NEWUSER|NEWNS) → sh, blocked in read
//	        newuidmap, newgidmap (or uid_map, setgroups, gid_map)
//	        write "\n" → sh execs the program, which has all capabilities there
//
// A kill of the parent in between closes the pipe: read fails, the shell ends
// and nothing runs with half a map.
package userns
