//go:build !windows

package safefs

// foreign tells whether the system takes a name for more than a name.
func foreign(string) bool { return false }
