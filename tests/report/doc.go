// Command report runs `go test` and says, in a few lines, what happened: each
// package with its time, the whole output of every test that failed, each
// skipped test with its reason, and the counts.
//
//	report -- go test -race ./...
//
// It also watches over what tests leave behind. They run with TMPDIR set to a
// folder of the run; report makes itself the reaper of every process that
// they orphan (daemons included), and afterwards looks for processes, for
// mounts below the folder and for files in it. What it finds it names and
// removes, and the run counts as failed. Mounts that appeared elsewhere
// meanwhile are named too, but are not proof against the tests: others may
// use the machine.
//
// The exit status is 0 when all passed and nothing was left, that of go test
// when that failed, and 1 otherwise.
package main
