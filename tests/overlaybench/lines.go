package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/plyfs/plyfs/tests/internal/timing"
)

// line is a workload on one mount.
type line struct {
	name  string
	lower layers
	// copiesUp: what is below is changed. A plain directory then gets a copy of
	// the layers, and the floor, which has none, is left out. writes: something
	// new is written; without either, plain sides work in the layer itself.
	copiesUp, writes bool
	// sizable: a copy of the layers for a plain directory is too much. bulky: so
	// is keeping what each round has made until the end.
	sizable, bulky bool
	prepare        []string // a command that is not measured
	steps          []step
	// compared tells what of the tree is hashed, after the steps; "" only where
	// there is nothing: no time, or no tree. Apart are names whose content, in which
	// there are times and inode numbers, differs from run to run.
	compared string
	apart    []string
	// mounting: what is measured is mounting and unmounting.
	mounting bool
}

// step is one measured command, in the mount.
type step struct {
	name string
	args []string
	// cold: caches are dropped before; beside: a command that runs meanwhile,
	// which has begun to write when the step begins.
	cold   bool
	beside []string
	// time, if not nil, finds the seconds in what the command printed.
	time func(out []byte) (float64, error)
	// memory: what is reported is the server's resident MiB after the step.
	memory bool
	// part: it is part of another step, and counts in no mean.
	part bool
	// after runs before the memory is read.
	after func() error
}

// plain returns the directory in which a side without layers works.
func (l *line) plain(lower []string, upper string) (string, error) {
	if l.lower == none {
		return upper, nil
	}
	if !l.copiesUp && !l.writes && len(lower) == 1 {
		return lower[0], nil
	}
	for i := len(lower) - 1; i >= 0; i-- {
		if err := timing.Tool("cp", "-a", lower[i]+"/.", upper); err != nil {
			return "", err
		}
	}
	return upper, nil
}

func sh(script string) []string { return []string{"sh", "-ec", script} }

// lines are all of them, in the order of the tables.
func (b *bench) lines() []line {
	var all []line
	for _, group := range [][]line{b.looking(), b.writing(), b.changing(), b.transfer(), b.long()} {
		all = append(all, group...)
	}
	return all
}

func (b *bench) work(args ...string) []string { return append([]string{b.self, "work"}, args...) }

// looking are the lines that only read.
func (b *bench) looking() []line {
	find := []string{"find", ".", "-printf", "%s %m %T@\n"}
	grep := sh("grep -rc nosuchword . >/dev/null || [ $? = 1 ]") // 2: a file could not be read
	ls := []string{"ls", "-l", "d"}
	return []line{
		{name: "mount", lower: treeS, mounting: true, steps: mountSteps()},
		{name: "find", lower: treeS, compared: ".", steps: []step{
			{name: "find S, first", args: find}, {name: "find S, again", args: find}, {name: "find S, third", args: find},
		}},
		{name: "missing", lower: treeS, compared: "net", steps: []step{{name: "100,000 stats of missing names", args: b.work("missing")}}},
		{name: "ls", lower: merged, compared: "d", steps: []step{{name: "ls -l of 20,000 merged, first", args: ls}, {name: "ls -l, again", args: ls}}},
		{name: "grep", lower: treeS, compared: ".", steps: []step{
			{name: "grep -r S, first", args: grep}, {name: "grep -r S, again", args: grep}, {name: "grep -r S, third", args: grep},
		}},
		{name: "open", lower: treeS, compared: "net", prepare: b.work("opens", "net/net.go", "100"), steps: []step{
			{name: "open, read, close × 100,000", args: b.work("opens", "net/net.go", "100000")},
		}},
	}
}

// writing are the lines that make files.
func (b *bench) writing() []line {
	untar := func(which string) []string { return sh("tar xf " + filepath.Join(b.dir, which+".tar")) }
	git := "export HOME=/nonexistent GIT_CONFIG_NOSYSTEM=1; git -c gc.auto=0 "
	build := `mkdir p && cd p && printf 'module p\ngo 1.21\n' >go.mod &&
		printf 'package main\nimport ("encoding/json"; "fmt")\nfunc main() { v, err := json.Marshal(1); fmt.Println(v, err) }\n' >main.go &&
		HOME=/nonexistent GOCACHE=$PWD/cache GOFLAGS= GOWORK=off GOTOOLCHAIN=local GOPROXY=off go build -trimpath -buildvcs=false -o prog .`
	dpkg := "dpkg --root=$PWD --force-depends --force-script-chrootless --log=/dev/null -i " + filepath.Join(b.debsDir(), "*.deb") + " >/dev/null"
	return []line{
		{name: "untar", writes: true, compared: ".", steps: []step{{name: "untar S", args: untar("S")}}},
		{name: "untar-L", writes: true, compared: ".", steps: []step{{name: "untar L", args: untar("L")}}},
		{name: "cp", lower: treeS, writes: true, compared: ".", steps: []step{{name: "cp -a S", args: sh("mkdir new && cp -a net runtime crypto cmd new")}}},
		{name: "git", lower: treeS, writes: true, compared: ".", apart: []string{"index"}, steps: []step{
			{name: "git init, add S", args: sh(git + "init -q . && " + git + "add .")},
			{name: "git status, after add", args: sh(git + "status -s >/dev/null")},
			{name: "git status, again", args: sh(git + "status -s >/dev/null")},
		}},
		{name: "go-build", writes: true, compared: "p/prog", steps: []step{{name: "go build", args: sh(build)}}},
		{name: "dpkg", lower: rooted, writes: true, compared: "usr", steps: []step{{name: "dpkg -i of ten packages", args: sh(dpkg)}}},
		{name: "rm-new", writes: true, compared: ".", prepare: untar("S"), steps: []step{{name: "rm -rf of new S", args: sh("rm -rf *")}}},
		{name: "rename", writes: true, compared: ".", prepare: b.work("make", "1000"), steps: []step{{name: "20,000 renames", args: b.work("renames", "1000", "20000")}}},
		{name: "mixed", lower: treeS, writes: true, compared: ".", steps: []step{{name: "8 mixed workers", args: b.work("mixed", "8")}}},
	}
}

// changing are the lines that change what is below.
func (b *bench) changing() []line {
	return []line{
		{name: "chmod", lower: treeS, copiesUp: true, compared: ".", steps: []step{{name: "chmod -R of lower S", args: sh("chmod -R o-r,g-r .")}}},
		{name: "chown", lower: treeS, copiesUp: true, compared: ".", steps: []step{{name: "chown -R of lower S", args: sh("chown -R 12:13 .")}}},
		{name: "append", lower: blobs, copiesUp: true, sizable: true, bulky: true, compared: "1g", steps: []step{{name: "append a byte to 1 GiB", args: sh("printf x >>1g")}}},
		{name: "rewrite", lower: small, copiesUp: true, compared: ".", steps: []step{{name: "rewrite 1,000 files (O_TRUNC)", args: b.work("rewrite", "d", "1000")}}},
		{name: "rm-lower", lower: treeS, copiesUp: true, compared: ".", steps: []step{{name: "rm -rf of lower S", args: sh("rm -rf *")}}},
		{name: "beside", lower: blobs, copiesUp: true, sizable: true, bulky: true, compared: ".", steps: []step{
			{name: "looking around, alone", args: b.work("around")},
			{name: "looking around, 4 GiB being copied up", args: b.work("around"), beside: sh("printf x >>4g")},
		}},
	}
}

// transfer are the lines that move bytes.
func (b *bench) transfer() []line {
	all := []line{
		{name: "sequential", writes: true, bulky: true, compared: "big", steps: []step{
			{name: "write 2 GiB", args: sh("dd if=/dev/zero of=big bs=1M count=2048 status=none conv=fsync")},
			{name: "read 2 GiB, cold", args: sh("dd if=big of=/dev/null bs=1M status=none"), cold: true},
		}},
	}
	fill := []string{"dd", "if=/dev/zero", "of=f", "bs=1M", "count=256", "status=none", "conv=fsync"}
	for _, direct := range []int{0, 1} {
		for _, jobs := range []int{1, 8} {
			how := map[int]string{0: "buffered", 1: "direct"}[direct]
			l := line{name: fmt.Sprintf("fio-%s-%d", how, jobs), writes: true, bulky: true, compared: "f", prepare: fill}
			for _, rw := range []string{"randread", "randwrite"} {
				args := fio(rw, "psync", jobs, map[bool]int{true: 128, false: 32}[direct == 0 && rw == "randread"])
				l.steps = append(l.steps, step{name: fmt.Sprintf("fio %s 4k, %s, %d", rw, how, jobs), args: append(args, fmt.Sprintf("--direct=%d", direct)), time: fioTime})
			}
			all = append(all, l)
		}
	}
	return append(all, line{name: "mmap", writes: true, bulky: true, compared: "f", prepare: fill, steps: []step{
		{name: "mmap random read, cold", args: fio("randread", "mmap", 1, 64), time: fioTime, cold: true},
	}})
}

// fio reads or writes mib MiB in all at random places of f, the same ones each
// time. All blocks that are written are the same, so that what f is afterwards does
// not depend on which of several jobs comes first, and tells whether one was lost.
func fio(rw, engine string, jobs, mib int) []string {
	return []string{
		"fio", "--name=f", "--filename=f", "--size=256M", "--bs=4k", "--rw=" + rw, "--ioengine=" + engine, "--norandommap", "--randrepeat=1",
		"--thread", fmt.Sprintf("--numjobs=%d", jobs), fmt.Sprintf("--io_size=%dK", mib<<10/jobs), "--group_reporting", "--invalidate=0", "--buffer_pattern=0x5a", "--output-format=json",
	}
}

// fioTime is how long the transfers took.
func fioTime(out []byte) (float64, error) {
	type half struct {
		Bytes float64 `json:"io_bytes"`
		Rate  float64 `json:"bw_bytes"`
	}
	var v struct {
		Jobs []struct {
			Read  half `json:"read"`
			Write half `json:"write"`
		} `json:"jobs"`
	}
	if err := json.Unmarshal(out, &v); err != nil {
		return 0, err
	}
	if len(v.Jobs) != 1 {
		return 0, errors.New("fio reported no group")
	}
	j := v.Jobs[0]
	if j.Read.Rate > 0 {
		return j.Read.Bytes / j.Read.Rate, nil
	}
	if j.Write.Rate > 0 {
		return j.Write.Bytes / j.Write.Rate, nil
	}
	return 0, errors.New("fio moved nothing")
}

// long is the line that takes longest: it is about memory, and has no time that
// a tree could be compared for.
func (b *bench) long() []line {
	walk := []string{"find", ".", "-size", "+1"}
	return []line{
		{name: "memory", lower: many, steps: []step{
			{name: fmt.Sprintf("MiB after a walk of %d files", b.many), args: walk, memory: true},
			{name: "MiB after dropped caches", args: []string{"true"}, memory: true, after: settled},
		}},
	}
}
