// Package safefs is the one gate through which plyfs touches directories that
// somebody else may have filled: layers, uppers, volumes. Everything in them
// (names, symlinks, types) is taken for hostile.
//
// # The rule
//
// A file is reached by a directory's descriptor and a name, never by a path
// string that is joined and walked again. A name is one component: empty
// names, "..", and names with '/' or NUL are refused before any system call
// ("." is accepted where a method says so), and the kernel is always told not
// to follow a symlink in the last component. One component that is neither
// ".." nor followed cannot lead out of the directory, whatever others rename
// meanwhile; so methods that take a name are safe without openat2.
//
// A path of several components is resolved by the kernel with openat2(2) and
// RESOLVE_NO_MAGICLINKS, and one of RESOLVE_BENEATH, RESOLVE_IN_ROOT (and
// RESOLVE_NO_SYMLINKS): see [Resolve]. Where openat2 is missing (a kernel
// before 5.6) or refused by a seccomp filter (ENOSYS or EPERM, found out once,
// by a probe), the path is walked here, one component and one O_NOFOLLOW at a
// time, with symlinks' texts interpreted against the stack of directories
// that were walked through: ".." is a pop of that stack and not a system call,
// so that a directory that is moved away during the walk leads nowhere new.
//
// # Descriptors
//
// A [Dir] owns an O_PATH descriptor of a directory, a [Ref] one of any file, a
// symlink too. Both are the caller's to Close. Methods may be called from many
// goroutines at once; Close must come after all of them have returned. No
// absolute path is stored. Descriptors are close-on-exec.
//
// # Extended attributes and modes without following
//
// Linux before 6.13 has no call for the attributes of a name below a
// descriptor. Then `/proc/self/fd/N/NAME` is given to the l…xattr calls: the
// magic link leads to the directory of the descriptor, the last component is
// not followed. From 6.13 on the …xattrat calls are used and no /proc is
// needed. A mode is set by fchmodat2 (6.6), else through `/proc/self/fd/N` of
// an O_PATH descriptor that was seen to be no symlink. Both are probed once.
//
// # Mounts
//
// Mount points inside a directory are crossed, as a path walk would; Stat
// tells device and mount, so that a caller who minds can see it.
//
// # Elsewhere than Linux
//
// A [Dir] is an os.Root there (portable.go), which keeps the rule by itself;
// whether the last component is a symlink is looked at before and after the
// opening. There are no Refs, extended attributes, unnamed files or renames with
// flags. The build tag `portable` makes Linux use that code, for its tests
// (make cross).
package safefs
