# packages.sh DIR PROGRAM BASE [LOAD]: builds images with podman and buildah
# whose RUN steps install packages, on a base that debootstrap made (BASE, a
# tar), with overlay.mount_program set to PROGRAM ("" for the kernel's overlay)
# on a new store in DIR; with LOAD (a tar of podman save) it takes the images
# from there. Prints "ok CHECK" or "FAIL CHECK: why", leaves in DIR/listing
# every file of the images, and in DIR/saved.tar the images.
D=$1 P=$2 BASE=$3 LOAD=$4
mkdir -p "$D/s" "$D/r" "$D/ctx"
export TMPDIR=$D
opt=
[ -z "$P" ] || opt="--storage-opt overlay.mount_program=$P"
limits=
[ "$(id -u)" != 0 ] || limits="--ulimit nofile=4096:4096 --ulimit nproc=4096:4096"
pod() { podman --root "$D/s" --runroot "$D/r" --storage-driver overlay $opt --cgroup-manager=cgroupfs --events-backend=file --runtime runc "$@"; }
bah() { buildah --root "$D/s" --runroot "$D/r" --storage-driver overlay $opt "$@"; }
good() {
	local name=$1 out
	shift
	if out=$("$@" 2>&1); then echo "ok $name"; else echo "FAIL $name: $(echo "$out" | tail -8 | tr '\n' '~' | head -c 2500)"; fi
}
# What two builds of one kind do not have in common either:
#   /proc /sys /dev /run           not of the image
#   /etc/{hosts,hostname,resolv.conf,mtab}   put there by podman
#   /var/log                       logs, with times
#   /var/lib/apt/lists             what the mirror said, as of when
#   /var/cache/{apt,ldconfig,debconf}   indexes with times and inode numbers
#   /var/lib/dpkg/*-old, lock*     the state before the last package
# and everything's times.
skip='\( -path ./proc -o -path ./sys -o -path ./dev -o -path ./run -o -path ./etc/hosts -o -path ./etc/hostname -o -path ./etc/resolv.conf -o -path ./etc/mtab -o -path ./var/log -o -path ./var/lib/apt/lists -o -path ./var/cache/apt -o -path ./var/cache/ldconfig -o -path ./var/cache/debconf -o -path ./var/lib/dpkg/*-old -o -path ./var/lib/dpkg/lock* \) -prune -o'
# Names, types, modes, owners, targets, link counts, sizes; what has one inode;
# all attributes (capabilities); and all content.
listing() {
	pod run --rm --network=none $limits "$1" sh -fc 'cd / && export LC_ALL=C
		find . -xdev '"$skip"' \( -type f -printf "%p %y %m %U:%G %n %s\n" -o -printf "%p %y %m %U:%G %l\n" \) | sort
		find . -xdev '"$skip"' -type f -links +1 -printf "%i %p\n" | sort -k 2 | awk "{ if (!(\$1 in first)) first[\$1] = \$2; print \$2, \"is\", first[\$1] }"
		find . -xdev '"$skip"' -print0 | sort -z | xargs -0 getfattr -h -d -m - -e hex -- | grep -v "^$"
		find . -xdev '"$skip"' -type f -print0 | sort -z | xargs -0 md5sum'
}
if [ -n "$LOAD" ]; then
	good load pod load -q -i "$LOAD"
else
	good import pod import -q "$BASE" localhost/base
	cat > "$D/ctx/Containerfile" <<'F'
FROM localhost/base
ENV DEBIAN_FRONTEND=noninteractive
RUN printf 'Acquire::Check-Valid-Until "false";\nAcquire::Check-Date "false";\nAPT::Install-Recommends "false";\n' > /etc/apt/apt.conf.d/99build
RUN apt-get update -q && apt-get install -qy attr file less bzip2 libcap2-bin
RUN apt-get install -qy rsync iputils-ping openssh-client cron && apt-get purge -qy less && rm -rf /usr/share/doc/* && dpkg --audit
RUN useradd -m person && su person -c 'echo mine > ~/f && ln ~/f ~/g && mkdir -m 1777 ~/t' && chmod 4755 /usr/bin/rsync && setfattr -n user.note -v text /home/person/f
RUN rm -rf /usr/share/zoneinfo && mkdir /usr/share/zoneinfo && apt-get install -qy --reinstall tzdata && apt-get install -qy --reinstall coreutils bash
F
	good build pod build --network=host --ulimit nofile=4096:4096 --ulimit nproc=4096:4096 -t localhost/app "$D/ctx"
	good buildah sh -c "$(declare -f bah); D='$D' opt='$opt'; b=\$(bah from localhost/app) && bah run --runtime runc --network=host \$b -- sh -c 'apt-get install -qy xz-utils perl && rm -rf /var/lib/apt/lists/* && apt-get clean && mv /usr/share/perl /usr/share/perl5.old && mv /usr/share/perl5.old /usr/share/perl' && bah commit -q \$b localhost/more && bah rm \$b"
fi
good works pod run --rm --network=none $limits localhost/more sh -c 'file /bin/ls | grep ELF && rsync -a /etc/ /tmp/etc/ && diff -r --no-dereference /etc /tmp/etc && bzip2 -k -c /bin/ls | bunzip2 | cmp - /bin/ls && ! test -e /usr/bin/less && dpkg --verify --admindir=/var/lib/dpkg coreutils bash perl && getcap /bin/ping | grep -q cap_net_raw'
: > "$D/listing"
for i in app more; do
	if listing localhost/$i >> "$D/listing" 2> "$D/err"; then echo "ok listing-$i"; else echo "FAIL listing-$i: $(tail -3 "$D/err" | tr '\n' '~')"; fi
done
[ -n "$LOAD" ] || good save pod save -q -m -o "$D/saved.tar" localhost/app localhost/more
good rm pod rm -f -t 0 -a
good rmi pod rmi -f -a
[ "$(id -u)" = 0 ] || pod system migrate >/dev/null 2>&1
m=$(grep " $D/s/overlay/.*/merged" /proc/mounts)
[ -z "$m" ] && echo "ok no-mount-left" || echo "FAIL no-mount-left: $m"
