//go:build linux

package mounts

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// maxStderr bounds what is shown of a program's complaints, in bytes.
const maxStderr = 4096

// runProgram starts p.Program as podman does and waits until it has detached.
func runProgram(ctx context.Context, p Plan) (err error) {
	fd, err := unix.MemfdCreate("stderr", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return fmt.Errorf("mounting %s: memory file for the program's messages: %w", p.Target, err)
	}
	stderr := os.NewFile(uintptr(fd), "stderr")
	defer func() { err = errors.Join(err, stderr.Close()) }()
	cmd := exec.CommandContext(ctx, p.Program, "-o", programOptions(p), p.Target)
	cmd.Dir = p.Dir
	cmd.Stderr = stderr
	runErr := cmd.Run()
	if ctxErr := ctx.Err(); runErr != nil && ctxErr != nil {
		return fmt.Errorf("mounting %s with %s: %w", p.Target, p.Program, ctxErr)
	}
	if runErr != nil {
		return fmt.Errorf("mounting %s with %s: %w: %s", p.Target, p.Program, runErr, messages(stderr))
	}
	// The daemon may hold the file for as long as it lives: it grows no more.
	_, _ = unix.FcntlInt(stderr.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_GROW)
	is, err := IsMountPoint(p.Target)
	if err != nil {
		return err
	}
	if !is {
		return fmt.Errorf("mounting %s: %s ended without an error but mounted nothing: %s", p.Target, p.Program, messages(stderr))
	}
	return nil
}

func messages(f *os.File) string {
	b, err := io.ReadAll(io.NewSectionReader(f, 0, maxStderr))
	if err != nil {
		return "its messages cannot be read: " + err.Error()
	}
	text := strings.TrimSpace(string(b))
	if text == "" {
		return "it gave no reason"
	}
	return text
}

// programOptions is the -o argument. Paths below p.Dir that hold a byte which
// options or lists are split at are given relative to it; others are escaped
// twice, once for the option parser of libfuse and once for the list.
func programOptions(p Plan) string {
	lowers := make([]string, len(p.Lowers))
	for i, path := range p.Lowers {
		lowers[i] = programPath(p.Dir, path, ":")
	}
	parts := []string{"lowerdir=" + strings.Join(lowers, ":")}
	if p.Upper != "" {
		parts = append(parts, "upperdir="+programPath(p.Dir, p.Upper, ""), "workdir="+programPath(p.Dir, p.Work, ""))
	}
	parts = append(parts, p.Options...)
	return strings.Join(append(parts, flagWords(p.Flags)...), ",")
}

func programPath(dir, path, list string) string {
	if !strings.ContainsAny(path, `:,\`) {
		return path
	}
	if rel, err := filepath.Rel(dir, path); dir != "" && err == nil && filepath.IsLocal(rel) && !strings.ContainsAny(rel, `:,\`) {
		return rel
	}
	if list != "" {
		path = escape(path, list)
	}
	return escape(path, ",")
}

// flagWords are the words for the flags, for a program.
func flagWords(flags uintptr) []string {
	var words []string
	for _, w := range []string{"ro", "nodev", "nosuid", "noexec", "noatime", "nodiratime", "strictatime"} {
		if f, _, _ := wordFlag(w); flags&f != 0 {
			words = append(words, w)
		}
	}
	return words
}
