package layertar

import (
	"errors"
	"syscall"
)

// vanishedError says that an entry went away, or gave its name to a file of
// another type, after it was seen and before anything of it was told. It ends
// what is done for that entry, and the walk goes on as if it had not been listed.
type vanishedError struct{ err error }

func (e *vanishedError) Error() string { return e.err.Error() }
func (e *vanishedError) Unwrap() error { return e.err }

// ofEntry judges what a call on an entry's own name said.
func ofEntry(err error) error {
	if err == nil {
		return nil
	}
	for _, no := range [...]syscall.Errno{syscall.ENOENT, syscall.ENOTDIR, syscall.ELOOP, syscall.ENXIO} {
		if errors.Is(err, no) {
			return &vanishedError{err}
		}
	}
	return err
}

func vanished(err error) bool {
	if err == nil {
		return false
	}
	var v *vanishedError
	return errors.As(err, &v)
}
