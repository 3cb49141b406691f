// Package projquota sets project quotas: bounds on what the files of a
// directory tree take of their filesystem. A file belongs to a project, a
// number that is kept in its inode; what is made in a directory whose flag
// says so belongs to the directory's project (ioctl_xfs_fssetxattr(2),
// FS_IOC_FSSETXATTR of linux/fs.h). The bounds of a project are in the
// filesystem's quota files (quotactl(2)). xfs has them with the mount option
// pquota, ext4 with the feature project and the option prjquota. Only root of
// the initial user namespace may set either.
//
// It is Linux's alone.
package projquota
