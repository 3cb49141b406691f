package fusetest

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// childEnv tells a test binary that it is a Child.
const childEnv = "PLYFS_TEST_CHILD"

// limit ends a child that hangs; the children of long tests may take longer.
func limit() time.Duration {
	if os.Getenv("PLYFS_LONG") != "" {
		return 20 * time.Minute
	}
	return 2 * time.Minute
}

// Result is what a script did.
type Result struct {
	Out, Err string
	Status   int // exit status
}

// Script runs a shell script in a child whose working directory is /; args
// are $1, $2 and so on.
func Script(t testing.TB, script string, args ...string) Result {
	t.Helper()
	return run(t, nil, "/bin/bash", append([]string{"-c", script, "script"}, args...)...)
}

// Must is Script for scripts that have to succeed; it returns what was
// printed.
func Must(t testing.TB, script string, args ...string) string {
	t.Helper()
	r := Script(t, "set -e\n"+script, args...)
	if r.Status != 0 {
		t.Fatalf("script failed with %d: %s\n%s\n%s", r.Status, script, r.Out, r.Err)
	}
	return r.Out
}

// Child runs the test named name of this test binary in a child; env holds
// further NAME=value settings. The child's test must skip itself unless
// IsChild.
func Child(t testing.TB, name string, env ...string) Result {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return run(t, append(env, childEnv+"=1"), exe, "-test.run=^"+name+"$", "-test.v", "-test.count=1")
}

// IsChild tells whether this process was started by Child.
func IsChild() bool { return os.Getenv(childEnv) != "" }

func run(t testing.TB, env []string, name string, args ...string) Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit())
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), env...)
	cmd.WaitDelay = time.Second
	var out, errb bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errb
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("run %s %s: %v", name, strings.Join(args, " "), err)
	}
	if ctx.Err() != nil {
		t.Fatalf("%s %s hangs:\n%s\n%s", name, strings.Join(args, " "), out.String(), errb.String())
	}
	return Result{Out: out.String(), Err: errb.String(), Status: cmd.ProcessState.ExitCode()}
}
