package conformance

import (
	"debug/buildinfo"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// logRaces has programs that this one runs, if they are built with -race, write
// what they find into the new folder dir.
func logRaces(dir string) error {
	return errors.Join(
		os.Mkdir(dir, 0o700), os.Chmod(dir, 0o777), // ordinary users' programs too
		os.Setenv("GORACE", strings.TrimSpace(os.Getenv("GORACE")+" log_path="+filepath.Join(dir, "report"))))
}

// racesIn returns the reports in dir.
func racesIn(dir string) (found string, err error) {
	all, err := filepath.Glob(filepath.Join(dir, "report.*"))
	for _, p := range all {
		b, rerr := os.ReadFile(p)
		found += string(b)
		err = errors.Join(err, rerr)
	}
	return found, err
}

// raced tells whether the program of a process was built with -race.
func raced(t *testing.T, pid int) bool {
	t.Helper()
	info, err := buildinfo.ReadFile(fmt.Sprintf("/proc/%d/exe", pid))
	if err != nil {
		return false // not made by Go
	}
	for _, s := range info.Settings {
		if s.Key == "-race" {
			return s.Value == "true"
		}
	}
	return false
}

// TestRacesAreSeen: a race in a program that writes to nowhere is found.
func TestRacesAreSeen(t *testing.T) {
	t.Parallel()
	const text = `package main

import ("os"; "os/exec")

func main() {
	if len(os.Args) == 1 {
		if err := exec.Command(os.Args[0], "racy").Run(); err == nil { os.Exit(1) }
		return
	}
	n, done := 0, make(chan bool)
	go func() { n++; done <- true }()
	n++
	<-done
	os.Exit(n & 4)
}
`
	dir := t.TempDir()
	src, exe := filepath.Join(dir, "racy.go"), filepath.Join(dir, "racy")
	if err := os.WriteFile(src, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	build := exec.Command("go", "build", "-race", "-o", exe, src)
	build.Dir = dir
	build.Env = append(os.Environ(), "CGO_ENABLED=1")
	if out, err := build.CombinedOutput(); err != nil {
		t.Skipf("no race detector here: %v: %s", err, out)
	}
	races := filepath.Join(dir, "races")
	if err := os.Mkdir(races, 0o700); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), "GORACE=log_path="+races+"/report")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	found, err := racesIn(races)
	if err != nil || !strings.Contains(found, "DATA RACE") {
		t.Errorf("found %q, %v", found, err)
	}
}
