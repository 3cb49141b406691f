#!/bin/sh
# install.sh: copies what make built from BIN and docs/man into DESTDIR/PREFIX,
# writes the shells' completions there, and links the helpers of mount(8) into
# DESTDIR/SBINDIR. Only the helpers may be missing afterwards, which is said: an
# ordinary user can write no SBINDIR.
set -eu

: "${BIN:=bin}" "${DESTDIR:=}" "${PREFIX:=/usr/local}" "${SBINDIR:=/sbin}"
share=$DESTDIR$PREFIX/share
bash=$share/bash-completion/completions
zsh=$share/zsh/site-functions
fish=$share/fish/vendor_completions.d

completion() { # completion PROGRAM SHELL
	case $1 in
	fuse-overlay) "$BIN/$1" "--completion=$2" ;;
	*) "$BIN/$1" completion "$2" ;;
	esac
}

install -d "$DESTDIR$PREFIX/bin" "$share/man/man1" "$bash" "$zsh" "$fish"
for main in cmd/*/main.go; do
	program=$(basename "$(dirname "$main")")
	install -m 0755 "$BIN/$program" "$DESTDIR$PREFIX/bin/"
	completion "$program" bash >"$bash/$program"
	completion "$program" zsh >"$zsh/_$program"
	completion "$program" fish >"$fish/$program.fish"
done
install -m 0644 docs/man/*.1 "$share/man/man1/"
for program in plyfs fuse-overlay; do
	helper=$DESTDIR$SBINDIR/mount.fuse.$program
	if ! { install -d "$DESTDIR$SBINDIR" && ln -sfn "$PREFIX/bin/$program" "$helper"; } 2>/dev/null; then
		echo "without the helper for mount -t fuse.$program: $helper cannot be written; run as root, or give SBINDIR"
	fi
done
echo "installed into $DESTDIR$PREFIX; helpers for mount(8) in $DESTDIR$SBINDIR"
