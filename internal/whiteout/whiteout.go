// Package whiteout knows the marks by which one layer hides what is in the
// layers below: whiteouts (a name that is gone) and opaque marks (a directory
// of which nothing below shows through).
package whiteout

// Style is how marks are written in a directory on disk. In a tar stream they
// are always the regular files `.wh.NAME` and `.wh..wh..opq` (OCI image
// specification, "Layer").
type Style uint8

const (
	// Apply has no marks: what is whited out is deleted (vfs, btrfs, zfs).
	Apply Style = iota
	// Trusted writes character device 0:0 and trusted.overlay.opaque=y, the
	// kernel overlay's format for root.
	Trusted
	// User writes character device 0:0 where mknod may, else the xattr form,
	// and user.overlay.opaque=y: the kernel's format with `userxattr`.
	User
	// Files writes `.wh.NAME` and `.wh..wh..opq` as in a tar, as mount
	// programs find them.
	Files
)
