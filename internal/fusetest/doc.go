// Package fusetest helps tests that mount.
//
// A test never touches a mount that its own process serves: it drives it from
// a child, a shell script (Script) or the test binary itself (Child). AsUser
// runs a script as an ordinary user in namespaces of its own, with a device
// node, users and subordinate IDs that the machine need not have. Main runs a
// package's tests and fails when mounts, descriptors, goroutines or processes
// are left.
package fusetest
