package main

// The manual page is made of these, and so is what --help prints.
const (
	usage = "fuse-overlay [-f] [-d] [-s] [-o OPTIONS]... [SOURCE] MOUNTPOINT"
	short = "one writable tree over many read-only ones, in userspace"
	help  = "usage: " + usage + "\n\n" + long + "\n\nExamples:\n" + examples + "\n"

	examples = `  fuse-overlay -o lowerdir=top:bottom,upperdir=changes,workdir=work mnt
  fuse-overlay -o lowerdir=top:bottom mnt
  fusermount3 -u mnt
  mount -t fuse.fuse-overlay overlay mnt -o lowerdir=bottom,upperdir=changes,workdir=work
  fuse-overlay --completion=bash > /etc/bash_completion.d/fuse-overlay
  podman --storage-opt overlay.mount_program=/usr/local/bin/fuse-overlay run …`

	long = `fuse-overlay mounts a union of directories on MOUNTPOINT: the lower ones are
only read, changes go to the upper one, by the rules of the Linux kernel's
overlay filesystem and in its format on disk. It is a drop-in for fuse-overlayfs
as mount_program of podman and buildah. It goes into the background once the
mount is there; else it prints the reason and exits with 1.

Root mounts with mount(2), root of a user namespace too; others need fusermount3.

Flags:

    -o OPTIONS      options, separated by commas; may be given several times
    -f              stay in the foreground
    -d, --debug     log every request, and stay in the foreground
    -s              serve one request at a time
    -V, --version   print the version
    -h, --help      print this
    --completion=SHELL  print completions for bash, zsh or fish

Layers:

    lowerdir=DIR[:DIR...]  the lower layers, the top one first, up to 500; a
                           colon in a name is written \:, a comma \,
    lowerdir+=DIR          one more of them, below
    upperdir=DIR           takes all changes
    workdir=DIR            empty, on the filesystem of upperdir; both are given,
                           or neither for a read-only mount

Owners, each shown otherwise than the layers have it:

    uidmapping=ID:SHOWN:LENGTH[:ID:SHOWN:LENGTH...], gidmapping=...
    squash_to_root, squash_to_uid=UID, squash_to_gid=GID
    xattr_permissions=1|2  owners and modes are kept in an attribute: 1 of
                           security.*, 2 of user.*
    static_nlink           every directory has link count 1

Content:

    noacl, noxattrs        no POSIX ACLs, no extended attributes at all
    volatile, fsync=0      sync nothing: after a crash the upper may be damaged
    redirect_dir=off|auto|on  whether a renamed directory may be a redirect
    metacopy=on|off        whether a change of attributes copies no data
    userxattr              marks are user.overlay.* and .wh. files only
    context=LABEL          SELinux label of all files; also fscontext,
                           defcontext, rootcontext
    size=N, inodes=N       bounds of the upper (EDQUOT); K, M, G or T behind a number

Speed:

    timeout=SECONDS        how long the kernel may trust what it knows (for good);
                           also entry_timeout, attr_timeout
    writeback              let the kernel gather writes
    passthrough            let the kernel read and write the files of upperdir
                           itself (the machine's root only)
    threaded=0, max_threads=N, max_write=BYTES, clone_fd
    transport=auto|go-fuse  who reads the kernel's requests (auto)
    fast_ino, xino=on|off|auto, ino32_t  numbers of inodes

Mount:

    ro, noexec, nosuid, nodev, noatime and their opposites
    allow_other, allow_root  let other users in (root always does)
    auto_unmount             unmount when the program ends, however it ends
    fsname=NAME              the source that /proc/mounts shows
    stats=FILE               where SIGUSR1 writes what the mount does
    strict                   refuse options that are not known

In the background, errors and warnings (why the mount has turned read-only) go,
with the time, to fuse-overlay.log in workdir, of up to 64 KiB; what was before
that to fuse-overlay.log.old.

Options that are not known are named in one warning and ignored. Those of
mount(8) (relatime, strictatime, …), libfuse (nonempty, …) and the kernel's
overlay (index, uuid, nfs_export=off, verity=off, …) that have no meaning here
are known and do nothing; user, users, owner and group imply what they do there.

Environment:

    FUSE_OVERLAYFS_DISABLE_OVL_WHITEOUT  set: whiteouts are .wh. files

Signals: SIGTERM, SIGINT and SIGHUP unmount. SIGUSR1 writes a few numbers about
the mount, a name and a value a line, to the file of stats=, or without that to
standard error, in the background to fuse-overlay.log; stats= is also written
when the mount ends.`
)
