package main

import (
	"time"

	"github.com/sirupsen/logrus"

	"github.com/plyfs/plyfs/cmd/fuse-overlay/internal/options"
	fuseoverlay "github.com/plyfs/plyfs/fuse-overlay"
	"github.com/plyfs/plyfs/internal/errno"
)

// config turns options into what the engine is to do. Warnings are about what
// it does otherwise than asked.
func config(o *options.Options, log *logrus.Entry) (c fuseoverlay.MountConfig, warnings []string, err error) {
	c = fuseoverlay.MountConfig{
		Lower: o.Lower, Upper: o.Upper, Work: o.Work,
		Volatile: o.Volatile || o.NoSync,
		MaxWrite: o.MaxWrite,
		NoACL:    o.NoACL, NoXattrs: o.NoXattrs,
		AllowOther: o.AllowOther, ReadOnly: o.ReadOnly,
		NoExec: o.NoExec, NoSuid: o.NoSuid, NoDev: o.NoDev, NoAtime: o.NoAtime,
		FsName: o.Source, Debug: o.Debug, Log: log,
	}
	if o.Timeout != nil {
		d := max(*o.Timeout, time.Nanosecond) // 0 would be for good
		c.EntryTimeout, c.AttrTimeout = d, d
	}
	if o.UserXattr {
		c.Formats = fuseoverlay.User | fuseoverlay.Files
	}
	for _, m := range []struct {
		asked bool
		say   string
	}{
		{len(o.UIDs)+len(o.GIDs) > 0, "uidmapping and gidmapping"},
		{o.Squashes(), "squash_to_root, squash_to_uid and squash_to_gid"},
		{o.XattrPermissions > 0, "xattr_permissions"},
		{o.Size+o.Inodes > 0, "size and inodes"},
		{o.FileWhiteouts, "FUSE_OVERLAYFS_DISABLE_OVL_WHITEOUT"},
	} {
		if m.asked {
			return c, nil, errno.New(errno.ErrNotSupported, "%s are not supported: leave them out", m.say)
		}
	}
	for _, m := range []struct {
		asked bool
		say   string
	}{
		{o.RedirectDir == "on", "redirect_dir=on has no effect: renames of directories copy them up"},
		{o.Metacopy, "metacopy=on has no effect: files are copied up whole"},
		{o.Writeback, "writeback has no effect"},
		{o.StaticNlink, "static_nlink has no effect"},
		{o.Ino32, "ino32_t has no effect"},
		{o.AllowRoot, "allow_root has no effect: allow_other lets others in"},
	} {
		if m.asked {
			warnings = append(warnings, m.say)
		}
	}
	return c, warnings, nil
}
