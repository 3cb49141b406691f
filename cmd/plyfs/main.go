// Command plyfs mounts a container store, the one that podman, buildah and
// skopeo use, as a control filesystem, and walks the same tree without a
// mount. `plyfs --help` lists its verbs; docs/man has their manual pages.
package main

import (
	"fmt"
	"os"
)

// version is set by the linker.
var version = "unknown"

func main() {
	args, err := commandLine(os.Args)
	if err != nil {
		fmt.Fprintf(os.Stderr, "plyfs: %s\n", sentence(err))
		os.Exit(1)
	}
	// What this program starts again is called with the arguments made of them.
	os.Args[0] = "plyfs"
	os.Exit(run(args, stdio{os.Stdin, os.Stdout, os.Stderr}))
}
