//go:build !windows

package safefs

// HasOwners tells whether files have a user and a group on this system.
const HasOwners = true
