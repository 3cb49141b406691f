#!/bin/bash
# stop.sh: unmounts the demo and removes its store. Nothing to stop is fine.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/demo.sh
check_demo

if [ ! -e "$demo" ]; then
	echo "no demo to stop"
	exit 0
fi
if mounted; then
	"$plyfs" umount "$demo/mnt"
fi
# The peers' own mount, if podman looked at the store.
if awk -v m="$demo/store/overlay" '$5 == m { found = 1 } END { exit !found }' /proc/self/mountinfo; then
	umount "$demo/store/overlay"
fi
# The server is gone when nobody holds its lock files any more; files of
# subordinate IDs are removed in a user namespace.
"$plyfs" demo remove "$demo"
echo "removed $demo"
