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
"$plyfs" demo remove "$demo"
echo "removed $demo"
