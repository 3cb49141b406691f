package drivers

import (
	"math"
	"strconv"
	"strings"

	"github.com/plyfs/plyfs/internal/errno"
)

// Limits bound what a layer takes on disk by itself; 0 is no bound. Bytes are
// those of allocated blocks, and Inodes files, directories and the driver's own
// few beside them.
type Limits struct{ Bytes, Inodes int64 }

// Check refuses bounds below zero.
func (l Limits) Check() error {
	if l.Bytes < 0 || l.Inodes < 0 {
		return errno.New(errno.ErrBadValue, "a limit is a number from 1 on, or 0 for none")
	}
	return nil
}

// Limiter is a driver that can bound layers. What goes over a bound fails with
// EDQUOT or, as some filesystems have it, ENOSPC.
type Limiter interface {
	// Limits returns the bounds of a published layer and, where there is a
	// bound, what counts against it.
	Limits(id string) (Limits, Usage, error)
	// SetLimits sets the bounds of a published layer, which may be smaller
	// than what it takes. ErrNotSupported, with the reason, where there is
	// nothing that would hold them; ErrInUse when the layer is mounted and a
	// first bound would need it not to be.
	SetLimits(id string, l Limits) error
}

// LimitsOf returns a layer's bounds, none when the driver has none.
func LimitsOf(d Driver, id string) (Limits, Usage, error) {
	if l, ok := d.(Limiter); ok {
		return l.Limits(id)
	}
	return Limits{}, Usage{}, nil
}

// SetLimits sets a layer's bounds.
func SetLimits(d Driver, id string, l Limits) error {
	if err := l.Check(); err != nil {
		return err
	}
	if d, ok := d.(Limiter); ok {
		return d.SetLimits(id, l)
	}
	if l == (Limits{}) {
		return nil
	}
	return NoLimits(d.Name())
}

// NoLimits is the error of a driver that cannot bound layers.
func NoLimits(driver string) error {
	return errno.New(errno.ErrNotSupported, "%s: the driver sets no limits for layers: leave size and inodes out, or use overlay on xfs with pquota", driver)
}

// ParseSize reads a number of bytes, or one with a unit: b, k, m, g, t or p in
// either case, with b or ib behind it or not (containers-storage.conf(5),
// "size"). A unit is 1024 of the one before. ErrBadValue for anything else.
func ParseSize(text string) (int64, error) {
	bad := errno.New(errno.ErrBadValue, "%q is no size: write a number, or one with a unit, as 512m or 10g", text)
	digits := strings.TrimRight(text, "bBiIkKmMgGtTpP")
	unit := strings.ToLower(text[len(digits):])
	digits = strings.TrimSuffix(digits, " ")
	n, err := strconv.ParseFloat(digits, 64)
	if err != nil || strings.Trim(digits, "0123456789.") != "" {
		return 0, bad
	}
	shift := 0
	if unit != "" && unit != "b" {
		i := strings.IndexByte("kmgtp", unit[0])
		if rest := unit[1:]; i < 0 || rest != "" && rest != "b" && rest != "ib" {
			return 0, bad
		}
		shift = 10 * (i + 1)
	}
	if n *= float64(int64(1) << shift); n >= math.MaxInt64 {
		return 0, bad
	}
	return int64(n), nil
}
