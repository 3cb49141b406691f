//go:build !linux

package cmdtest

// apart does nothing: the tests mount on Linux only.
func apart() error { return nil }
