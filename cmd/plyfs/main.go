// Command plyfs mounts a container store, the one that podman, buildah and
// skopeo use, as a control filesystem, and walks the same tree without a
// mount. `plyfs --help` lists its verbs; docs/man has their manual pages.
package main

import (
	"os"
)

// version is set by the linker.
var version = "unknown"

func main() {
	os.Exit(run(os.Args[1:], stdio{os.Stdin, os.Stdout, os.Stderr}))
}
