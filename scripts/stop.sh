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
[ -x "$plyfs" ] || make --no-print-directory build-binary
if mounted; then
	"$plyfs" umount "$demo/mnt"
fi
# Files of subordinate IDs can only be removed in a user namespace.
"$plyfs" demo remove "$demo"
echo "removed $demo"
