package fsview

import (
	"regexp"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/store"
)

// maxReference is the longest image reference, in bytes.
const maxReference = 255

// reference is an image reference by the grammar of the OCI distribution
// specification: [host[:port]/]path[:tag][@digest].
var reference = regexp.MustCompile(`^(?:` + refHost + `(?::[0-9]+)?/)?` + refPart + `(?:/` + refPart + `)*(?::[\w][\w.-]{0,127})?(?:@[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,})?$`)

const (
	refLabel = `[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?`
	refHost  = refLabel + `(?:\.` + refLabel + `)*`
	refPart  = `[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*`
)

// checkNewNames refuses names that an object of kind must not be given: podman
// refuses a whole store for one image with a name that is no reference. Those
// that an object has already are kept as they are.
func checkNewNames(kind store.Kind, names ...string) error {
	if kind != store.KindImage {
		return nil
	}
	for _, n := range names {
		if len(n) > maxReference || !reference.MatchString(n) {
			return errno.New(errno.ErrBadValue, "%q is not a name for an image, with which podman would list none at all: use [HOST/]path[:tag] in lower case, like localhost/app:1", clip(n))
		}
	}
	return nil
}
