package main

import (
	"path/filepath"
	"strings"

	"github.com/plyfs/plyfs/internal/errno"
)

// helperName is what mount(8) calls for filesystems of type fuse.plyfs.
const helperName = "mount.fuse.plyfs"

// commandLine returns the program's arguments; those of a mount helper are
// turned into ones of the verb mount.
func commandLine(argv []string) ([]string, error) {
	if len(argv) == 0 || filepath.Base(argv[0]) != helperName {
		return argv[min(1, len(argv)):], nil
	}
	return helperArgs(argv[1:])
}

// helperArgs reads `SOURCE DIR [-sfnv] [-N NAMESPACE] [-o OPTIONS] [-t TYPE]`
// (mount(8), external helpers).
func helperArgs(args []string) ([]string, error) {
	var places, options []string
	for i := 0; i < len(args); i++ {
		a := args[i]
		switch {
		case a == "-o" || a == "-t" || a == "-N":
			if i+1 == len(args) {
				return nil, errno.New(errno.ErrBadValue, "%s wants a value after %s", helperName, a)
			}
			i++
			if a == "-o" {
				options = append(options, args[i])
			}
		case a == "-f":
			return []string{"version"}, nil // a mount that is only pretended
		case strings.HasPrefix(a, "-"):
			if strings.Trim(a, "-snv") != "" {
				return nil, errno.New(errno.ErrBadValue, "%s does not know %s: it is called by mount(8)", helperName, a)
			}
		default:
			places = append(places, a)
		}
	}
	if len(places) != 2 {
		return nil, errno.New(errno.ErrBadValue, "%s wants a source and a directory: it is called by mount(8)", helperName)
	}
	out := []string{"mount"}
	// What the options name wins over the source.
	if filepath.IsAbs(places[0]) {
		options = append([]string{"store=" + places[0]}, options...)
	}
	for _, o := range options {
		out = append(out, "-o", o)
	}
	return append(out, "--", places[1]), nil
}
