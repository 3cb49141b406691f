#!/bin/bash
# run.sh: makes a private demo store, mounts it, shows a tour and leaves the
# mount. Running it again shows the tour again.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/demo.sh
check_demo

mkdir -p -m 700 "$demo"
mkdir -p "$demo/mnt"
cp scripts/tour "$demo/tour"
cd "$demo"
if mounted; then
	echo "The demo is mounted already."
else
	"$plyfs" demo import --root "$demo/store" --runroot "$demo/run"
	"$plyfs" mount --root "$demo/store" --runroot "$demo/run" --log-file "$demo/log" "$demo/mnt"
fi
# What an interrupted tour left.
if [ -d mnt/containers/web ]; then
	echo umount force > mnt/containers/web/ctl || true
	rmdir mnt/containers/web
fi

echo
echo "A container store as files, in $demo:"
while IFS= read -r command; do
	printf '\n$ %s\n' "$command"
	bash -c "$command" </dev/null 2>&1 || true
done < tour
cat <<END

Mounted on $demo/mnt
Look around; mnt/README says what there is. "make stop" ends it.
podman sees the same store:
  podman --root $demo/store --runroot $demo/run images
END
