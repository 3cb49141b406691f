//go:build linux && !portable

package safefs

import (
	"os"
	"strings"
)

// Place returns the path of d below top, without a slash in front; "" for top
// itself. Symlinks that led to d are not in it.
func (d *Dir) Place(top *Dir) (string, error) {
	base, err := os.Readlink(procFd(top.fd))
	if err != nil {
		return "", err
	}
	path, err := os.Readlink(procFd(d.fd))
	return strings.TrimPrefix(strings.TrimPrefix(path, base), "/"), err
}
