package conformance

// What the others are known to get wrong: the case, and what is seen.

var knownKernel = map[string]string{
	"rename-exchange-merged-directories": "EXDEV (redirect_dir=off)",
	"rename-lower-directory":             "EXDEV (redirect_dir=off)",
	"rename-merged-directory":            "EXDEV (redirect_dir=off)",
	"rename-over-open-file":              "fstat of the replaced lower file says 1 link",
	"bug-rename-over-open-unlinked":      "fstat of the replaced lower file says 1 link",
	"bug-rename-of-lower-directories":    "EXDEV (redirect_dir=off)",
}

// knownKernelUser is the kernel's overlay in a user namespace, which has no index.
var knownKernelUser = map[string]string{
	"rename-exchange-merged-directories":        "EXDEV (redirect_dir=off)",
	"rename-lower-directory":                    "EXDEV (redirect_dir=off)",
	"rename-merged-directory":                   "EXDEV (redirect_dir=off)",
	"bug-rename-of-lower-directories":           "EXDEV (redirect_dir=off)",
	"rename-over-open-file":                     "fstat of the replaced lower file says 1 link",
	"bug-rename-over-open-unlinked":             "fstat of the replaced lower file says 1 link",
	"link-pair-written":                         "a copy-up splits hard links",
	"link-pair-by-the-other-name-after-remount": "a copy-up splits hard links",
	"link-pair-chmod":                           "a copy-up splits hard links",
	"link-pair-removed":                         "a copy-up splits hard links",
	"link-pair-removed-nlink-after-remount":     "a copy-up splits hard links",
	"link-of-lower":                             "another inode number after a remount",
	"link-of-symlink":                           "another inode number after a copy-up",
	"inode-numbers-over-copy-up":                "other ones after a remount",
	"tree-persists":                             "other inode numbers after a remount",
}

// knownFusermount is ours on behalf of a user without any capability.
var knownFusermount = map[string]string{
	"copy-up-of-own-0-permissions": "the server may not read such a file, and its layer may not be changed",
}

// knownPeer is fuse-overlayfs 1.10.
var knownPeer = map[string]string{
	"rename-exchange-merged-directories":        "EXDEV",
	"rename-lower-directory":                    "EXDEV",
	"rename-merged-directory":                   "EXDEV",
	"rename-over-open-file":                     "fstat of the replaced file says 1 link",
	"rename-longest-name":                       "ENAMETOOLONG from 252 bytes on",
	"longest-names":                             "ENAMETOOLONG from 252 bytes on",
	"link-pair-written":                         "a copy-up splits hard links",
	"link-pair-by-the-other-name-after-remount": "a copy-up splits hard links",
	"link-pair-chmod":                           "a copy-up splits hard links",
	"link-pair-removed":                         "fstat of an unlinked file says 1 link",
	"link-pair-removed-nlink-after-remount":     "a copy-up splits hard links",
	"unnamed-file-linked":                       "no O_TMPFILE",
	"unnamed-file-in-lower-directory":           "no O_TMPFILE",
	"unnamed-file-that-stays-unnamed":           "no O_TMPFILE",
	"fstat-after-unlink":                        "1 link",
	"seek-in-lower":                             "no SEEK_DATA and SEEK_HOLE",
	"over-4-gib":                                "holes are copied up as data",
	"statfs":                                    "names of 251 bytes",
	"setuid-goes-with-write":                    "the bits are back after a remount",
	"setgid-directory":                          "the group is not inherited",
	"owner-of-new-files":                        "no O_TMPFILE",
	"acl-default-with-umask":                    "the mask is applied",
	"lower-device-is-no-whiteout":               "EIO when a device is copied up",
	"xattr-of-symlinks":                         "set on the target, by its path on the host",
	"xattr-that-looks-like-a-mark":              "EPERM",
	"truncate-to-same-size":                     "the time is kept (writeback)",
	"times-kept-by-copy-up":                     "the copy-up of a child changes a directory's mtime",
	"inode-numbers-over-copy-up":                "a copied-up directory's number changes with a remount",
	"fifos":                                     "EIO when a FIFO is copied up",
	"set-ids-go-with-chown-of-a-fifo":           "EIO when a FIFO is copied up",
	"tree-persists":                             "mtimes and inode numbers differ after a remount",
	"xattr-of-symlink-out-of-the-layers":        "set on the target, by its path on the host",
	"birth-time":                                "none",
	"made-again-beside-a-whiteout":              "what was removed is found again after a remount",
	"posix-FstatDeleted":                        "1 link",
	"bug-nlink-depends-on-what-was-seen":        "1, then 2",
	"bug-mkdir-255":                             "ENAMETOOLONG",
	"bug-kernel-lists-ghosts":                   "the kernel lists .wh..wh..opq",
	"bug-deleted-content-is-visible":            "it is",
	"bug-bind-mounted-twin":                     "one of the two is not listed",
	"bug-chown-r-changes-mtime":                 "it does",
	"bug-rename-of-lower-directories":           "EXDEV",
	"bug-setgid-lost-by-copy-up":                "it is, and not inherited",
	"bug-needless-whiteouts":                    "one of an opaque mark",
	"bug-directory-modes-widened":               "the set-group-ID bit is not inherited",
	"bug-root-changes-when-listed":              "its mtime does",
	"bug-rename-over-open-unlinked":             "fstat of the replaced file says 1 link",
}

var knownOurs = map[string]string{}
