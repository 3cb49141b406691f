//go:build !docs

package main

// documents writes the manual page in a build with the tag docs.
func documents([]string) (done bool, err error) { return false, nil }
