#!/bin/sh
# need.sh run|test: makes sure that the programs are there which running the
# demo, or the tests, needs. As root on Debian it installs what is missing;
# otherwise it says exactly what is missing and fails.
set -eu

purpose=${1:?usage: need.sh run|test}

# "program package" a line; a program that starts with / is looked for there.
for_run='fusermount3 fuse3
newuidmap uidmap
nsenter util-linux'
for_test="$for_run
gcc gcc
/usr/include/stdio.h libc6-dev
podman podman
buildah buildah
skopeo skopeo
runc runc
containers-storage containers-storage
fuse-overlayfs fuse-overlayfs
getfattr attr
setfacl acl
setcap libcap2-bin
busybox busybox-static
jq jq
strace strace
setpriv util-linux
xz xz-utils
zstd zstd
bzip2 bzip2
rsync rsync
vim vim
inotifywait inotify-tools
bsdtar libarchive-tools
stress-ng stress-ng
mkfs.btrfs btrfs-progs
mkfs.xfs xfsprogs
filefrag e2fsprogs
debootstrap debootstrap
docker-registry docker-registry
python3 python3
fio fio
git git
zsh zsh
fish fish"
if [ "$(uname -m)" = x86_64 ]; then # a kernel with quotas, as a program
	for_test="$for_test
linux.uml user-mode-linux"
fi

case $purpose in
run) list=$for_run ;;
test) list=$for_test ;;
*) echo "need.sh: unknown purpose $purpose" >&2; exit 2 ;;
esac

PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

has() {
	case $1 in
	/*) [ -e "$1" ] ;;
	*) command -v "$1" >/dev/null 2>&1 ;;
	esac
}

missing() {
	printf '%s\n' "$list" | while read -r program package; do
		has "$program" || printf '%s\n' "$package"
	done | sort -u | tr '\n' ' '
}

packages=$(missing)
if [ -n "$packages" ]; then
	if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
		echo "installing from Debian: $packages"
		export DEBIAN_FRONTEND=noninteractive
		apt-get update -qq </dev/null
		# docker-registry comes with a service: it is not started (systemctl reads SYSTEMD_OFFLINE).
		# shellcheck disable=SC2086 # a list of words
		SYSTEMD_OFFLINE=1 apt-get install -y -qq --no-install-recommends $packages </dev/null
		packages=$(missing)
	fi
fi
if [ -n "$packages" ]; then
	echo "plyfs: to $purpose, these Debian packages are missing: $packages" >&2
	echo "plyfs: install them as root: apt-get install $packages" >&2
	exit 1
fi

if [ ! -c /dev/fuse ]; then
	[ "$(id -u)" = 0 ] && modprobe fuse 2>/dev/null || true
fi
if [ ! -c /dev/fuse ]; then
	echo "plyfs: there is no /dev/fuse: load the kernel's fuse module (modprobe fuse) or give the container that device" >&2
	echo "plyfs: without FUSE the same tree is reached by plyfs ls, cat, write, mkdir, rmdir, mv and ln" >&2
	exit 1
fi
