package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
)

func main() {
	if len(os.Args) < 4 || os.Args[1] != "--" {
		fmt.Fprintln(os.Stderr, "usage: report -- go test [FLAG | PACKAGE]...")
		os.Exit(2)
	}
	status, err := run(os.Stdout, os.Args[2:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "report:", err)
	}
	os.Exit(status)
}

// run runs args with -json added and returns the status to end with.
func run(out io.Writer, args []string) (int, error) {
	watch, err := newWatch()
	if err != nil {
		return 1, err
	}
	at := slices.Index(args, "test") + 1
	args = slices.Insert(slices.Clone(args), at, "-json")
	status, results, err := runTests(out, args, watch)
	if err != nil {
		return 1, errors.Join(err, watch.close())
	}
	left, others, err := watch.leftovers()
	if err != nil {
		return 1, err
	}
	results.summary(out)
	for _, m := range others {
		fmt.Fprintf(out, "note: new mount outside the test folder, perhaps somebody else's: %s\n", m)
	}
	if len(left) == 0 {
		fmt.Fprintln(out, "no mount, process or file was left behind")
	} else {
		fmt.Fprintln(out, "LEFT BEHIND (and now removed):")
		for _, l := range left {
			fmt.Fprintln(out, "  "+l)
		}
		if status == 0 {
			status = 1
		}
	}
	return status, watch.close()
}

// runTests runs the command and follows its events.
func runTests(out io.Writer, args []string, w *watch) (int, *results, error) {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = append(os.Environ(), "TMPDIR="+w.dir)
	cmd.Stderr = os.Stderr
	stream, err := cmd.StdoutPipe()
	if err != nil {
		return 1, nil, fmt.Errorf("pipe: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return 1, nil, fmt.Errorf("start tests: %w", err)
	}
	r := newResults()
	readErr := r.follow(stream, out)
	waitErr := cmd.Wait()
	var exit *exec.ExitError
	switch {
	case readErr != nil:
		return 1, nil, fmt.Errorf("read test events: %w", readErr)
	case errors.As(waitErr, &exit):
		return max(exit.ExitCode(), 1), r, nil
	case waitErr != nil:
		return 1, nil, fmt.Errorf("wait for tests: %w", waitErr)
	case len(r.failed) > 0:
		return 1, r, nil
	}
	return 0, r, nil
}
