package main

import (
	"os"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/plyfs/plyfs/cmd/fuse-overlay/internal/options"
	fuseoverlay "github.com/plyfs/plyfs/fuse-overlay"
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
		UIDs: o.UIDs, GIDs: o.GIDs, SquashUID: id32(o.SquashUID), SquashGID: id32(o.SquashGID),
		StaticNlink: o.StaticNlink, Ino32: o.Ino32,
		SingleThread: o.SingleThread, MaxThreads: o.MaxThreads, GoFuse: o.Transport == "go-fuse",
		MaxBytes: o.Size, MaxFiles: o.Inodes,
		FileWhiteouts: o.FileWhiteouts, MountData: labels(o),
		FsName: o.Source, Debug: o.Debug, Log: log,
	}
	if o.Timeout != nil {
		d := max(*o.Timeout, time.Nanosecond) // 0 would be for good
		c.EntryTimeout, c.AttrTimeout = d, d
	}
	if o.UserXattr {
		c.Formats = fuseoverlay.User | fuseoverlay.Files
	}
	c.Aside = fuseoverlay.Aside(o.XattrPermissions)
	c.Redirects, c.Metacopy = o.RedirectDir == "on", o.Metacopy
	c.AllowRoot, c.Writeback = o.AllowRoot, o.Writeback
	switch {
	case o.Passthrough && o.Strict:
		c.Passthrough = fuseoverlay.PassthroughOnly
	case o.Passthrough:
		c.Passthrough = fuseoverlay.PassthroughTry
	}
	for _, m := range []struct {
		asked bool
		say   string
	}{
		{o.Writeback && (o.Size > 0 || o.Inodes > 0), "writeback has no effect with size or inodes, which count what is written when it is"},
	} {
		if m.asked {
			warnings = append(warnings, m.say)
		}
	}
	return c, warnings, nil
}

func id32(id *int) *uint32 {
	if id == nil {
		return nil
	}
	v := uint32(*id) // options holds IDs of 32 bits
	return &v
}

// labels are the SELinux labels, as the kernel takes them. Where it has no
// SELinux it would refuse the mount for them, and there is nothing to label.
func labels(o *options.Options) []string {
	if _, err := os.Stat("/sys/fs/selinux/enforce"); err != nil {
		return nil
	}
	var out []string
	for _, l := range []struct{ key, value string }{{"context", o.Context}, {"fscontext", o.FSContext}, {"defcontext", o.DefContext}, {"rootcontext", o.RootContext}} {
		if l.value != "" {
			out = append(out, l.key+`="`+l.value+`"`)
		}
	}
	return out
}
