// Package holders finds out which programs use a directory tree, so that
// "busy" can be told with a name.
package holders

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Holder is a program that uses something in the tree.
type Holder struct {
	PID int
	// Name is the program's short name.
	Name string
	// How is "working directory", "root directory", "program" or "open file",
	// and Path what is held.
	How, Path string
}

// String returns "name (process N) has its working directory /m/layers".
func (h Holder) String() string {
	verb := "has its " + h.How
	if h.How == "open file" {
		verb = "has open"
	}
	return fmt.Sprintf("%s (process %d) %s %s", h.Name, h.PID, verb, h.Path)
}

// Of returns the programs that use dir or something below it, one entry a
// program, by process number. It reads links in /proc only and never touches
// dir, so that a dead server cannot stop it. Programs of other users are seen
// by root only; other mount namespaces are not looked into.
func Of(dir string) ([]Holder, error) {
	procs, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("look who uses %s: %w", dir, err)
	}
	var found []Holder
	for _, p := range procs {
		pid, err := strconv.Atoi(p.Name())
		if err != nil {
			continue // not a process
		}
		if h, ok := look(pid, dir); ok {
			found = append(found, h)
		}
	}
	slices.SortFunc(found, func(a, b Holder) int { return a.PID - b.PID })
	return found, nil
}

// look returns the first thing that a process holds in dir. Processes end and
// files are closed meanwhile, so links that cannot be read are passed over.
func look(pid int, dir string) (Holder, bool) {
	proc := filepath.Join("/proc", strconv.Itoa(pid))
	links := [][2]string{{"working directory", "cwd"}, {"root directory", "root"}, {"program", "exe"}}
	fds, err := os.ReadDir(filepath.Join(proc, "fd"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) {
		return Holder{}, false
	}
	for _, fd := range fds {
		links = append(links, [2]string{"open file", "fd/" + fd.Name()})
	}
	for _, l := range links {
		target, err := os.Readlink(filepath.Join(proc, l[1]))
		if err != nil || target != dir && !strings.HasPrefix(target, dir+"/") {
			continue
		}
		name, err := os.ReadFile(filepath.Join(proc, "comm"))
		if err != nil {
			name = []byte("a program")
		}
		return Holder{pid, strings.TrimSpace(string(name)), l[0], target}, true
	}
	return Holder{}, false
}
