package drivers

import (
	"strings"

	"github.com/plyfs/plyfs/internal/errno"
)

// CheckID refuses IDs that are no plain file name: they come from records on
// disk and become paths.
func CheckID(id string) error {
	if id == "" || id == "." || id == ".." || strings.ContainsAny(id, "/\x00") {
		return errno.New(errno.ErrBadValue, "layer ID %q is not a file name", id)
	}
	if len(id) > 255 {
		return errno.New(errno.ErrNameTooLong, "layer ID %q… is longer than a file name of 255 bytes", id[:32])
	}
	return nil
}
