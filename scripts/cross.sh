#!/bin/sh
# cross.sh: builds and vets the library and its command-line wrapper for the
# systems beside Linux, and tests on Linux the code that they use in place of
# Linux's own. The wrapper's programs go into bin/cross. They are not optimised,
# which takes a fifth less time: it is the building that counts.
set -eu

GO=${GO:-go}
export CGO_ENABLED=0
plain='-gcflags=all=-N -l'

# The programs that mount are for Linux.
packages=$($GO list ./store/... ./drivers/... ./cmd/... | grep -vE '/cmd/(plyfs|fuse-overlay)$')

for os in darwin freebsd windows; do
	for arch in amd64 arm64; do
		# shellcheck disable=SC2086 # one argument a package
		GOOS=$os GOARCH=$arch $GO build "$plain" $packages
		if [ -d cmd/containers-storage ]; then
			suffix=
			[ "$os" = windows ] && suffix=.exe
			GOOS=$os GOARCH=$arch $GO build "$plain" -o "bin/cross/$os-$arch/containers-storage$suffix" ./cmd/containers-storage
		fi
		echo "builds for $os/$arch"
	done
	# Tests are for Linux; go vet leaves them out only where it is given files.
	# shellcheck disable=SC2086
	GOOS=$os $GO list -deps -f '{{if .Module}}{{if .Module.Main}}{{.Dir}}{{range .GoFiles}} {{.}}{{end}}{{end}}{{end}}' $packages |
		while read -r dir files; do
			[ -z "$files" ] || (cd "$dir" && GOOS=$os $GO vet "$plain" $files)
		done
	echo "go vet finds nothing for $os"
done

$GO test -tags portable -run 'Both|RemoveTree' ./internal/safefs ./drivers/treecopy ./store
# The driver vfs over that code, beside the peers where they are installed.
$GO test -tags portable -run '^Test(Turns|Push|DiffIntoContent|StageLeavesNothing|DeleteRules|RecordsAsPeers|MountCountsShared|UserFiles)$/vfs' ./store
