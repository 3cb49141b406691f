#!/bin/sh
# cross.sh: builds and vets the library and its command-line wrapper for the
# systems beside Linux, and tests on Linux the code that they use in place of
# Linux's own. The wrapper's programs go into bin/cross. With CROSS_QUICK set to
# anything, as .ci/run does, each system is built for one architecture, and not
# optimised, which takes two fifths of the time.
set -eu

GO=${GO:-go}
export CGO_ENABLED=0
platforms='darwin/amd64 darwin/arm64 freebsd/amd64 freebsd/arm64 windows/amd64 windows/arm64'
flags=-gcflags=
if [ -n "${CROSS_QUICK:-}" ]; then
	platforms='darwin/arm64 freebsd/amd64 windows/amd64'
	flags='-gcflags=all=-N -l'
fi

# The programs that mount are for Linux.
packages=$($GO list ./store/... ./drivers/... ./cmd/... | grep -vE '/cmd/(plyfs|fuse-overlay)$')

for platform in $platforms; do
	GOOS=${platform%/*} GOARCH=${platform#*/}
	export GOOS GOARCH
	# shellcheck disable=SC2086 # one argument a package
	$GO build "$flags" $packages
	suffix=
	[ "$GOOS" = windows ] && suffix=.exe
	$GO build "$flags" -o "bin/cross/$GOOS-$GOARCH/containers-storage$suffix" ./cmd/containers-storage
	# Tests are for Linux; go vet leaves them out only where it is given files.
	# shellcheck disable=SC2086
	$GO list -deps -f '{{if .Module}}{{if .Module.Main}}{{.Dir}}{{range .GoFiles}} {{.}}{{end}}{{end}}{{end}}' $packages |
		while read -r dir files; do
			[ -z "$files" ] || (cd "$dir" && $GO vet "$flags" $files)
		done
	echo "builds for $platform, and go vet finds nothing"
done
unset GOOS GOARCH

$GO test -tags portable -run 'Both|RemoveTree' ./internal/safefs ./drivers/treecopy ./store
# The driver vfs over that code, beside the peers where they are installed.
$GO test -tags portable -run '^Test(Turns|Push|DiffIntoContent|StageLeavesNothing|DeleteRules|RecordsAsPeers|MountCountsShared|UserFiles)$/vfs' ./store
