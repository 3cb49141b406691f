// Package options reads the command line of fuse-overlay: what podman,
// buildah, mount(8), mount.fuse(8) and people give to a mount program. It is
// pure: it opens nothing and knows no filesystem, so it is tested by fuzzing.
//
// # Forms
//
//	fuse-overlay [-f] [-d] [-s] [-o OPTIONS]… [SOURCE] MOUNTPOINT
//	mount.fuse.fuse-overlay SOURCE MOUNTPOINT [-sfnv] [-N NS] [-t TYPE] [-o OPTIONS]
//
// The second is what mount(8) runs as a helper (mount(8), "EXTERNAL HELPERS");
// Program tells them apart by the program's name.
//
// # Splitting
//
// An -o argument is items between commas. A comma inside double quotes that
// begin a value (context="a,b") or after a backslash belongs to the item. Empty
// items mean nothing. In an item a backslash takes the next byte as it is, `\054` (three
// octal digits, as libfuse writes them) is the byte of that number. The value
// of lowerdir is split at colons; there `\:` is a colon of a name, whether the
// backslash comes alone or doubled: `\:` is what the kernel and newer versions
// of fuse-overlayfs take, `\\:` what is left of it by callers that escape for
// libfuse first. Empty elements of lists mean nothing: podman gives
// `uidmapping=:0:1:1024`.
//
// # Words
//
// A word is known by name and has a form: bare, with a value, or either (a
// switch: threaded, threaded=0, volatile). A bad value of a known word is an
// error that names it. Words that have no meaning here but are written for
// other programs that read the same list (mount(8)'s, libfuse's, the kernel
// overlay's) are known and do nothing. Any other is put into Unknown: podman
// passes stray ones. The last of two equal words wins.
package options
