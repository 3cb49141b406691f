# acceptance.sh DIR PROGRAM: runs podman and buildah with overlay.mount_program
# set to PROGRAM ("" for the kernel's overlay) on a new store in DIR, and prints
# a line "ok CHECK" or "FAIL CHECK: why" for each check.
D=$1 P=$2
mkdir -p "$D/s" "$D/r" "$D/ctx"
export TMPDIR=$D
opt=
[ -z "$P" ] || opt="--storage-opt overlay.mount_program=$P"
limits=
[ "$(id -u)" != 0 ] || limits="--ulimit nofile=4096:4096 --ulimit nproc=4096:4096"
pod() { podman --root "$D/s" --runroot "$D/r" --storage-driver overlay $opt --cgroup-manager=cgroupfs --events-backend=file --runtime runc "$@"; }
run() { pod run --network=none $limits "$@"; }
bah() { buildah --root "$D/s" --runroot "$D/r" --storage-driver overlay $opt "$@"; }
ok() { echo "ok $1"; }
bad() { echo "FAIL $1: $(echo "$2" | tail -5 | tr '\n' '~' | head -c 1500)"; }
# check NAME WANT COMMAND...: the command succeeds and prints WANT.
check() {
	local name=$1 want=$2 out status=0
	shift 2
	out=$("$@" 2>&1) || status=$?
	if [ $status = 0 ] && [ "$out" = "$want" ]; then ok "$name"; else bad "$name" "status $status, printed: $out"; fi
}
# good NAME COMMAND...: the command succeeds.
good() {
	local name=$1 out
	shift
	if out=$("$@" 2>&1); then ok "$name"; else bad "$name" "$out"; fi
}
# listing of a container's filesystem, as it sees itself.
shown='cd / && find bin etc opt srv data -xdev ! -name hosts ! -name hostname ! -name resolv.conf ! -name mtab | sort | while read -r f; do
	if [ -L "$f" ]; then echo "$f -> $(readlink "$f")"; else stat -c "%n %F %a %u:%g" "$f"; fi
	if [ -f "$f" ] && [ "${f#bin/}" = "$f" ]; then md5sum < "$f"; fi
done'

# A root filesystem of busybox and a few folders.
mkdir -p "$D/root"/{bin,etc,tmp,proc,sys,dev,opt/old/deep,srv,usr/bin,var/tmp}
cp /bin/busybox "$D/root/bin/busybox"
for a in sh ls cat rm mkdir rmdir ln cp mv chmod chown stat find sort readlink md5sum touch test echo sleep tar id dd sync head wc grep seq true; do ln -s busybox "$D/root/bin/$a"; done
printf 'root:x:0:0:root:/:/bin/sh\nuser:x:1000:1000::/:/bin/sh\n' > "$D/root/etc/passwd"
printf 'root:x:0:\nuser:x:1000:\n' > "$D/root/etc/group"
echo one > "$D/root/srv/one"; ln "$D/root/srv/one" "$D/root/srv/twin"
echo old > "$D/root/opt/old/file"; echo deep > "$D/root/opt/old/deep/file"; chmod 1777 "$D/root/tmp"
tar -C "$D/root" --owner=0 --group=0 -cf "$D/root.tar" . && rm -rf "$D/root"

good import pod import "$D/root.tar" localhost/base
check run hello run --rm localhost/base echo hello

cat > "$D/ctx/Containerfile" <<'F'
FROM localhost/base
RUN mkdir /data && echo first > /data/a && ln /data/a /data/b && chmod 4755 /bin/busybox && chown 1000:1000 /data/a
RUN rm -rf /opt/old && mkdir /opt/old && echo new > /opt/old/new && rm /srv/twin && mv /etc/group /etc/group2 && mv /etc/group2 /etc/group
RUN echo more >> /opt/old/new && mkdir -p /opt/x/y && mv /opt/x /opt/z && dd if=/dev/zero of=/data/zero bs=1024 count=300 2>/dev/null
COPY file /srv/copied
F
echo copied > "$D/ctx/file"
good build pod build --network=none --ulimit nofile=4096:4096 --ulimit nproc=4096:4096 -t localhost/app "$D/ctx"
pod rmi -f --ignore nothing >/dev/null 2>&1
check layers "first new more copied new" run --rm localhost/app sh -c 'echo $(cat /data/b /opt/old/new) $(cat /srv/copied) $(ls /opt/old)'
check owners "1000:1000 4755 2" run --rm localhost/app sh -c 'echo $(stat -c %u:%g /data/a) $(stat -c %a /bin/busybox) $(stat -c %h /data/a)'
run --rm localhost/app sh -c "$shown" > "$D/listing" 2>&1 && ok listing || bad listing "$(cat "$D/listing")"

run --name zcon localhost/app sh -c 'rm -rf /opt/z; mkdir /opt/z; echo changed > /srv/one; rm /data/a; touch /srv/added; mkdir /srv/dir; chown 1000:1000 /srv/added' || bad container "it failed"
d=$(pod diff zcon 2>&1 | grep -v -e /run -e '/etc$' -e '/proc$' -e '/sys$' -e '/dev$' -e /etc/mtab | sort | tr '\n' ' ')
want='A /srv/added A /srv/dir C /data C /opt C /opt/z C /srv C /srv/one D /data/a D /opt/z/y '
[ "$d" = "$want" ] || [ -z "$P" ] && ok diff || bad diff "$d" # podman forgets what is opaque in a diff of the kernel's
good commit pod commit -q zcon localhost/done
check committed "changed first 0 1000" run --rm localhost/done sh -c 'echo $(cat /srv/one) $(head -n1 /data/b) $(ls /opt/z | wc -l) $(stat -c %u /srv/added); test ! -e /data/a'
run --rm localhost/done sh -c "$shown" >> "$D/listing" 2>&1 && ok listing2 || bad listing2 "$(tail -3 "$D/listing")"
good export sh -c "$(declare -f pod); D='$D' opt='$opt'; pod export zcon | tar -tf - > '$D/exported' && grep -qx srv/added '$D/exported' && ! grep -qx data/a '$D/exported' && pod export zcon | tar -xOf - srv/one | grep -qx changed"
good save pod save -q -o "$D/saved.tar" localhost/done
good cp sh -c "$(declare -f pod); D='$D' opt='$opt'; echo in > '$D/in'; pod cp '$D/in' zcon:/srv/in && pod cp zcon:/srv/in '$D/out' && cmp '$D/in' '$D/out'"
check read-only "Read-only" run --rm --read-only localhost/app sh -c 'touch /srv/x 2>&1 | grep -o Read-only'
check user "1000" run --rm --user 1000:1000 localhost/app sh -c 'test ! -w /srv/one && id -u'
if [ "$(id -u)" = 0 ]; then
	good mount sh -c "$(declare -f pod); D='$D' opt='$opt'; m=\$(pod mount zcon) && test -f \"\$m/srv/added\" && pod umount zcon"
	maps="--uidmap 0:100000:5000 --gidmap 0:100000:5000"
else
	good mount pod unshare bash -c "$(declare -f pod); D='$D' opt='$opt'; m=\$(pod mount zcon) && test -f \"\$m/srv/added\" && test ! -e \"\$m/data/a\" && echo x > \"\$m/srv/mounted\" && pod umount zcon"
	check keep-id "1000 0:0 1000:1000" run --rm --userns=keep-id --user 1000 localhost/app sh -c 'echo $(id -u) $(stat -c %u:%g /srv/one /data/a)'
	maps="--uidmap 0:1:5000 --gidmap 0:1:5000"
fi
check userns "0:0 1000:1000 0:0" run --rm $maps localhost/app sh -c 'echo x > /srv/n; echo $(stat -c %u:%g /srv/one /data/a /srv/n)'
run $maps --name uns localhost/app sh -c 'echo more >> /srv/one; echo x > /srv/mine; chown 1000:1000 /srv/mine' >/dev/null 2>"$D/err" && pod commit -q uns localhost/uns >/dev/null 2>>"$D/err" || bad userns-commit "$(cat "$D/err")"
check userns-committed "0:0 1000:1000 1000:1000" run --rm localhost/uns sh -c 'echo $(stat -c %u:%g /srv/one /data/a /srv/mine)'
good parallel sh -c "$(declare -f pod run); D='$D' opt='$opt' limits='$limits'; for i in 1 2 3 4; do (run --rm --name p\$i localhost/app sh -c 'for i in \$(seq 100); do echo \$i > /srv/f\$i; done; rm -r /srv; mkdir /srv; ls /bin | wc -l') & done; for j in \$(jobs -p); do wait \$j || exit 1; done"

if b=$(bah from localhost/app 2>&1); then
	bah run --runtime runc "$b" -- sh -c 'echo built > /srv/built; rm /data/zero' >/dev/null 2>"$D/err" && bah copy -q "$b" "$D/ctx/file" /srv/again >/dev/null 2>>"$D/err" && bah commit -q "$b" localhost/built >/dev/null 2>>"$D/err" && bah rm "$b" >/dev/null 2>>"$D/err" && ok buildah || bad buildah "$(cat "$D/err")"
	check buildah-image "built copied" run --rm localhost/built sh -c 'echo $(cat /srv/built /srv/again); test ! -e /data/zero'
else
	bad buildah "$b"
fi

# A container and its mount program are killed; everything is removed after.
pod run -d --network=none $limits --name k localhost/app sleep 1000 >/dev/null 2>"$D/err" || bad kill "$(cat "$D/err")"
if [ -n "$P" ]; then
	id=$(pod inspect -f '{{.GraphDriver.Data.MergedDir}}' k 2>/dev/null)
	for p in /proc/[0-9]*; do
		if { tr '\0' ' ' < "$p/cmdline"; } 2>/dev/null | grep -q "^[^ ]*$P .*$id"; then kill -9 "${p#/proc/}"; fi
	done
fi
pod kill -s KILL k >/dev/null 2>&1
good remove-killed pod rm -f -t 0 k
# podman 4.3.1 may meet its own clean-up of a container that just ended, which
# still holds the container's shm mount.
removed() { pod rm -f -t 0 -a || { sleep 3; pod rm -f -t 0 -a; }; }
good rm removed
good rmi pod rmi -f -a
[ "$(id -u)" = 0 ] || pod system migrate >/dev/null 2>&1
m=$(grep " $D/s/overlay/.*/merged" /proc/mounts)
[ -z "$m" ] && ok no-mount-left || bad no-mount-left "$m"
if [ -n "$P" ]; then
	sleep 1
	for p in /proc/[0-9]*; do
		if { tr '\0' ' ' < "$p/cmdline"; } 2>/dev/null | grep -q "^[^ ]*$P .*$D"; then { tr '\0' ' ' < "$p/cmdline"; } 2>/dev/null; fi
	done > "$D/left"
	[ ! -s "$D/left" ] && ok no-daemon-left || bad no-daemon-left "$(cat "$D/left")"
fi
