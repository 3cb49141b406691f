#!/bin/sh
# fuzz.sh TIME: runs every fuzz target of the module for TIME, one at a time.
set -eu
time=${1:?usage: fuzz.sh TIME}
grep -rl --include='*_test.go' '^func Fuzz' . | xargs -r -n1 dirname | sort -u | while read -r dir; do
	go test -list '^Fuzz' "$dir" | grep '^Fuzz' | while read -r target; do
		echo "== $dir $target"
		go test -run '^$' -fuzz "^$target\$" -fuzztime "$time" -fuzzminimizetime 20x "$dir" </dev/null
	done
done
# The fuzzer's inputs mostly end within a case; these do not.
echo "== ./fuse-overlay TestDifferential, 60,000 sequences"
PLYFS_LONG=1 go test -count 1 -timeout 180m -run '^TestDifferential$' ./fuse-overlay
