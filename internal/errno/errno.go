// Package errno is the one place where a plyfs error becomes an errno.
//
// Code anywhere in plyfs returns ordinary Go errors. An error that a user can
// do something about wraps one of the kinds below, with a sentence that names
// the object and the reason; Of turns any error into the errno that the
// kernel, a shell or an exit status shows. docs/errno.md is the table for
// readers; a test keeps the two equal.
package errno

import (
	"context"
	"errors"
	"fmt"
	"io"
	"syscall"

	"github.com/plyfs/plyfs/internal/unix"
)

// Kind is a class of failures that share one errno. The kinds are the
// package's sentinels: compare with errors.Is.
type Kind struct {
	text string
	no   syscall.Errno
}

// Error returns the kind's words, used when no better sentence is known.
func (k *Kind) Error() string { return k.text }

// Errno returns the errno that the kind is shown as.
func (k *Kind) Errno() syscall.Errno { return k.no }

// The kinds. They are never reassigned.
var (
	ErrUnknown      = &Kind{"not known", syscall.ENOENT}
	ErrDuplicate    = &Kind{"already in use", syscall.EEXIST}
	ErrHasChildren  = &Kind{"has children", syscall.ENOTEMPTY}
	ErrInUse        = &Kind{"in use", syscall.EBUSY}
	ErrReadOnly     = &Kind{"read-only", syscall.EROFS}
	ErrBadValue     = &Kind{"bad value", syscall.EINVAL}
	ErrNotSupported = &Kind{"not supported", syscall.EOPNOTSUPP}
	ErrQuota        = &Kind{"over quota", syscall.EDQUOT}
	ErrBadStream    = &Kind{"broken stream or digest mismatch", syscall.EBADMSG}
	ErrTimeout      = &Kind{"waited too long for a lock", syscall.ETIMEDOUT}
	ErrDamaged      = &Kind{"damaged on disk", unix.EUCLEAN}
	ErrForbidden    = &Kind{"not permitted", syscall.EPERM}
	ErrTooLarge     = &Kind{"larger than its limit", syscall.EFBIG}
	ErrNameTooLong  = &Kind{"name too long", syscall.ENAMETOOLONG}
	ErrSeek         = &Kind{"cannot seek backwards", syscall.ESPIPE}
	ErrNotDir       = &Kind{"not a directory", syscall.ENOTDIR}
	ErrIsDir        = &Kind{"is a directory", syscall.EISDIR}
	ErrCrossDevice  = &Kind{"must be copied and removed", syscall.EXDEV}
)

type sentence struct {
	kind *Kind
	text string
	args error // keeps what %w in the format wrapped
}

func (s *sentence) Error() string { return s.text }

// Unwrap lets errors.Is find both the kind and whatever the sentence wrapped.
func (s *sentence) Unwrap() []error {
	if s.args == nil {
		return []error{s.kind}
	}
	return []error{s.kind, s.args}
}

// New returns an error of the given kind whose text is exactly the formatted
// sentence. %w is honoured; the kind given here wins over a wrapped one.
func New(kind *Kind, format string, args ...any) error {
	err := fmt.Errorf(format, args...)
	return &sentence{kind: kind, text: err.Error(), args: errors.Unwrap(err)}
}

// Of returns the errno for err: 0 for nil, that of the outermost Kind, else
// that of a wrapped system call's errno, EINTR for a cancelled context,
// ETIMEDOUT for a passed deadline, EBADMSG for a stream that ended early, and
// EIO for anything else. It never returns ENOSYS: the kernel would stop asking.
func Of(err error) syscall.Errno {
	if err == nil {
		return 0
	}
	//nolint:errorlint // only to spare the search, and its memory, for what is answered most often
	if no, ok := err.(syscall.Errno); ok && no != syscall.ENOSYS && no != 0 {
		return no
	}
	return search(err)
}

// search is Of for an error in which others may be wrapped.
func search(err error) syscall.Errno {
	var kind *Kind
	var no syscall.Errno
	switch {
	case errors.As(err, &kind):
		return kind.no
	case errors.As(err, &no):
		if no == syscall.ENOSYS || no == 0 {
			return syscall.EIO
		}
		return no
	case errors.Is(err, context.Canceled):
		return syscall.EINTR
	case errors.Is(err, context.DeadlineExceeded):
		return syscall.ETIMEDOUT
	case errors.Is(err, io.ErrUnexpectedEOF):
		return syscall.EBADMSG
	}
	return syscall.EIO
}
