package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// libpod is what podman's database remembers of the store it was made for.
// Empty where there is no database.
type libpod struct {
	path            string
	driver, runRoot string
}

// readLibpod reads the bucket `runtime-config` of a bolt_state.db. It takes no
// lock: podman wrote those values once, when it made the file. A missing file
// is no error; one that cannot be read is, and the caller goes on without.
func readLibpod(path string) (l libpod, err error) {
	l.path = path
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.ENOTDIR) {
		// Who may not read this may not read the store, and a root that is a
		// file holds none: its opening says so.
		return libpod{}, nil
	}
	if err != nil {
		return l, fmt.Errorf("podman's database is not readable, so its settings are not known: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	pairs, err := boltBucket(f, "runtime-config")
	if err != nil {
		return l, fmt.Errorf("podman's database is not understood, so its settings are not known: %w", err)
	}
	l.driver, l.runRoot = pairs["graph-driver-name"], pairs["run-root"]
	return l, nil
}
