# Sourced by run.sh and stop.sh: where the demo is. It is never the machine's
# own store. PLYFS_DEMO chooses another folder.
demo=${PLYFS_DEMO:-${TMPDIR:-/tmp}/plyfs-demo-$(id -u)}
plyfs=${PLYFS_BINARY:-$PWD/bin/plyfs}

# A folder of that name that is somebody else's is not touched.
check_demo() {
	if [ -L "$demo" ] || { [ -e "$demo" ] && [ "$(stat -c %u "$demo")" != "$(id -u)" ]; }; then
		echo "plyfs: $demo is not a folder of this user: name another one with PLYFS_DEMO" >&2
		exit 1
	fi
}

mounted() {
	awk -v m="$demo/mnt" '$5 == m && / - fuse.plyfs / { found = 1 } END { exit !found }' /proc/self/mountinfo
}
