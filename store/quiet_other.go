//go:build !linux

package store

// quiet would know that nothing was written in the store's directories; this
// system has no notifications that are queued before the writing call returns,
// so it never says so, and tokens and stamps are compared at each look.
type quiet struct{}

func neverQuiet() *quiet { return nil }

func newQuiet([]string) *quiet { return nil }

func (*quiet) works() bool { return false }

func (*quiet) holds() bool { return false }

func (*quiet) empty() {}

func (*quiet) close() error { return nil }
