// Package fuseoverlay is one tree over many: a union of layer directories by
// the rules of the Linux kernel's overlay filesystem. docs/overlay.md is its
// behaviour for users, with every deviation. It knows nothing of stores.
//
// There are two engines over one search. Open takes layers, top first, and
// gives a read-only tree whose nodes are vnode.Node values, served in process
// (`tree/` of the control filesystem). Serve (MountConfig) gives the writable
// union of an upper directory and lower layers as a mount: an Overlay with a
// table of its own nodes, which the FUSE server asks by number.
//
// # Words
//
// A layer is a directory that somebody filled. A place is a directory inside a
// layer: the layer, and the place above it with a name. A spot is a place with
// a name: where one file of one layer lies. A directory node has a stack of
// places, top first, whose union it is; every other node has one spot, and a
// second one for its data when it is a metadata-only copy (metacopy).
//
// # Files
//
//	tree.go     Config, Open, the root, what all nodes share
//	marks.go    decoding of marks (names, attribute values): pure
//	merge.go    the search through the layers, as decisions: pure
//	probe.go    what one layer has under one name: the system calls for merge;
//	            absences.go what a layer is known not to have
//	lookup.go   the search carried out: places → spots → nodes
//	bare.go     mounts inside layers are not seen
//	place.go    places and the bounded cache of their descriptors; walk.go all below one
//	node.go     the node types; attr.go, xattr.go, handle.go their methods
//	moved.go    positions of files, and of those that others move
//	readdir.go  listing of a merged directory
//
// # Look-ups
//
// A look-up asks only the places of its directory's stack, top first, until a
// mark or a file ends the search. A directory of which one layer knows has a
// stack of one, and so has everything below it: a file deep in one layer of
// 500 costs a statx and (but in the bottom layer) a listxattr, like one in a
// single layer. No directory is listed to find one name in it; but a mount lists
// a layer's directory that was asked in vain often, once, and asks it no more for
// what it lacks (absences.go). That is done under the locks of the look-up, so it
// is bounded: at most 2^19 names, and 19 for each look-up in vain. The last name that a
// directory was asked for in vain it is not asked for again (childIndex.missing).
//
// # Descriptors
//
// Backing files are reached through internal/safefs by the descriptor of their
// place. Those are a cache of bounded size (Cache), shared by the trees that
// are given the same one; a place whose descriptor was let go is opened again
// from the place above it, and refused (ESTALE) when it is not the same
// directory any more. No descriptor is held between calls but in the cache and
// in open handles.
//
// # Identity
//
// A node's number is inomap's of (key of the tree; layer, device, inode), so
// two names of one file in one layer are one node. It is known in a listing
// from d_ino, on filesystems whose d_ino is stat's; on others (overlay, FUSE)
// each entry is looked at.
//
// # Locks
//
// Nodes never change after they are made, except for two atomic pointers: seen
// (one look-up's stat, taken by the first Attr) and where (the file's position,
// replaced as a whole). A method loads the position once. So today the order
// is short, two leaves that are never held together:
//
//	moved.mu         which files of volatile layers have nodes
//	Cache.mu         the descriptors' table; no system call under it
//
// # The writable overlay: words
//
// The upper is layer 0 of the tree's layers, so the search above finds what it
// has. A node is an inode. It is lower (its content is in a layer that is never
// written), or upper; it becomes upper once (copy-up) and never goes back. A
// link is a directory and a name in it by which a node is reached; a node has
// one home link and, hard-linked, more; a node without any is an orphan, lives
// by a descriptor that was opened before its last name was removed, and until
// the kernel forgets it. A directory is pure when no lower layer is in its
// stack, and impure when a child carries an origin (the kernel's words).
// Where an upper file lies is not stored: it is the upper place of its home's
// directory and the home's name, so a rename moves it without touching it. An
// upper directory's place is moved in place (relocate), and with it all below.
//
//	node states   lower ──copy-up──▶ upper ──last name gone──▶ orphan ──FORGET──▶ (dropped)
//	              lower ──last name gone──▶ lower, without a home (its layer still has it)
//
// # The writable overlay: files
//
//	mountconfig.go  MountConfig: what a mount is asked to be
//	apart.go        no layer in another that is written
//	overlay.go      Overlay: opening, root, closing, degrading to read-only
//	work.go         the work directory: staging names, sweeping (clear.go);
//	                ability.go what its filesystem can do; claim.go locks
//	                against other mounts, holder.go who has them
//	inode.go        node and its places; rarely.go what few nodes have
//	table.go        nodes by number (nodepages.go), FORGET; giveback.go memory
//	                goes back to the system
//	resolve.go      look-ups: search → nodes; dirindex.go listings with cookies,
//	                dirfill.go how they come to be, nametable.go their names;
//	                ahead.go directories that are read ahead of a walk
//	origin.go       file handles, origin and nlink records, index names: pure
//	index.go        hard links of lowers: work/index
//	quiet.go        directories' time of change, of which a copy-up is none
//	copyup.go       plan and execution of a copy-up; copyfile.go of a regular
//	                file, copydata.go its content, copypiped.go much of it; early.go
//	                copies made before they are asked for, spare.go empty files for them
//	orphan.go       files without a name
//	create.go       create, mkdir, mknod, symlink, link, unnamed files
//	remove.go       unlink, rmdir; whiteout.go the forms of whiteouts; trash.go
//	                what is removed after the answer
//	rename.go       rename as decode, plan, execution; replace.go its target
//	redirect.go     redirects of renamed directories; aside.go owners and modes
//	                kept in attributes; rootonly.go who is let in;
//	                squash.go owners that nobody sees
//	idmapped.go     owners of lower layers on ID-mapped mounts
//	edge.go         IDs and numbers as they are shown; quota.go bounds of the upper
//	setattr.go      attributes; uxattr.go extended ones; fds.go descriptors
//	settle.go       data before names, for a power loss
//	killed.go       whether a request's caller still waits
//	lending.go      rights that modes do not give, for a server without privilege
//	server*.go      requests of the kernel; mount.go mounting
//	                (whose requests internal/fusewire reads, or go-fuse); brief.go
//	                which of them take little
//	passthrough.go  open files that the kernel reads and writes itself;
//	                given.go contents that it gets while OPEN is at work
//
// # The writable overlay: locks
//
//	renameMu (R: each change of a directory, and whoever relies on a name; W: rename)
//	  └ node.dirMu, parent first (R: look-up, listing, use of a child's name; W: change)
//	      └ seldom.recording (while a link count is written down)
//	      └ node.copyMu (the step from lower to upper; never held over a copy)
//	          └ treeMu (table, names, links, indexes of directories; no system call under it)
//	fds.mu, Cache.mu, quota.mu, earlyCopies.mu, spares.mu, trash.mu  leaves
//	ahead.mu                    a leaf; who reads ahead holds no lock meanwhile
//	lending.mu                  a leaf; chmod and stat of upper files under it
//	work.sharing                a leaf; making and linking the whiteout that others are links of under it
//	passing.mu                  a leaf; only ioctls of /dev/fuse under it, which wait for nothing
//
// renameMu is not taken twice by one request, so what copies up is called
// before it. A copy-up in progress is a channel in the node (copying), not a
// lock: others that want the node upper wait for the channel, those that read
// go on reading below, and no directory is blocked by data being copied. Who
// copies, and who waits for that, stops when its caller is being killed, and for
// no other signal.
//
// Much that is copied within one ext4 is read by one goroutine and written by another
// (copypiped.go), with two channels between them and no lock held; who writes returns
// when who reads has ended, so what they use is not closed meanwhile. While the kernel
// asks for something else, and a few milliseconds after, who writes reads too.
//
// Who gives the kernel a file's contents (given.go) is a channel (handles.giving), too:
// others who open that file, or change it, wait for it with no lock held, and stop
// when their caller is being killed.
//
// What a row of changes of attributes will ask for next is staged by others before
// (early.go): steps 2 and 3 below, of files without a name, with no lock held, by
// where they lie below, since some have no node yet. Who
// then asks takes the copy off the table, waits for it as for a copy-up, and does 1
// and 4. Who asks for something else, or nobody, leaves it: it is closed.
// For a row of files that are truncated only the empty file of 2 is made before (spare.go).
// At the end of a mount such work, and what reads ahead of a walk, is told to end, and
// waited for a while only: a layer may not answer. All that is open is closed after it.
//
// A directory's first listing, too, is a channel (childIndex.fill): it is put
// together under the directory's lock for reading, and treeMu is held for pieces
// of it only. Look-ups in the directory go on, other listings of it wait. Nor does
// a directory's index grow, or get rid of removed names, in one go under it: names
// are in parts (nametable.go), and the order is packed a piece at each removal.
//
// # The writable overlay: order of steps, and what a kill after each leaves
//
// work/work holds what is staged, under names that begin with '#'; it is swept
// when a mount starts. So "leaves a staged file" below means: nothing.
//
//	copy-up of a file   1 parents are copied up, top first      2 unnamed file in work: data, owner, xattrs, mode, times
//	                    3 settled (not if volatile, nor on tmpfs; settle.go)  4 link into the upper directory
//	                    (of several names: 4a link into work/index, 4b link into the directory)
//	                    2 and 3 may come before 1 and before they are asked for (early.go).
//	                    A kill before 4 leaves nothing, after it the whole copy; after 4a the file by its index, all names see it.
//	                    Of a metadata-only copy 2 is without data and 3 does not happen.
//	link counts         of a file in the index: recorded as of 4a, and again after 4b. What takes a name of a lower layer
//	                    away, or gives it one in the upper, is done first and recorded after it: a kill between leaves a
//	                    count that is one too high (the entry stays for nothing), never one that is too low.
//	other types         staged in work, then renamed into place: nothing, or the whole.
//	directory           staged in work with xattrs, owner, mode, times; renamed into place. Then its parent's times are put back.
//	create              made in the upper directory; where a whiteout is, or the owner is not who the server is: staged with
//	                    its owner, then renamed into place (or over the whiteout). Nothing, or the file as it is to be.
//	mkdir               as create; over a whiteout it is staged as opaque and exchanged with it, the whiteout then removed in work.
//	unlink              upper only: unlink. With something below: a whiteout is linked (nothing in the upper) or renamed over the
//	                    upper file. One step: the name is there or gone.
//	rmdir               pure: rmdir. Else, once it is empty in the union: a whiteout (or, with nothing below, an empty
//	                    directory) is exchanged with it in one step; its own whiteouts are then removed in work, after the
//	                    answer (trash.go). Up to 64 directories wait for that, none in passthrough mode, and it is done
//	                    before work is closed. Who finds no room (ENOSPC, EDQUOT) waits, with no lock held, for what was
//	                    thrown away before, and tries once more; who asks how much there is waits for that too, for five
//	                    seconds at most. A kill leaves what is swept.
//	opaque              a directory that comes to lie over something is marked before it comes there.
//	rename              1 the source is copied up, of a directory the whole subtree (over a limit: EXDEV)
//	                    2 a moved directory is marked opaque: all that it has is in the upper, so nothing changes
//	                    (or, with redirects, only it is copied up in 1, and gets one: what that says is true before and after)
//	                    3 an empty directory in the target's place is exchanged with an empty, opaque one without whiteouts, which
//	                    has the same attributes; if 4 fails, they are exchanged back. (Where marks are files its mark is removed
//	                    before 4: a kill between shows what lower layers have there.)
//	                    4 one renameat2: plain, with WHITEOUT where something lies below the source, EXCHANGE with a whiteout
//	                    that is in the target's place of a directory, or as asked. Old or new, never both nor none.
//	                    5 whiteouts in a moved subtree, which mean nothing any more, are removed.
//	                    (where whiteouts are files, .wh. or with an attribute, the mark for the old name is staged before 2 and
//	                    renamed into place after 4: a kill between shows the lower file again, beside the new name. Those with
//	                    an attribute count in any directory of the upper for this mount's own look-ups, so that a kill between
//	                    2, which replaces opaque=x by y, and 5 shows none of them)
//	lent rights         (of a server with no more than its user's) a file's owner gets the rights that its mode does not give,
//	                    the step is done, the mode is put back. A kill between leaves the owner those rights.
//	whiteout            where it is a file with an attribute: the directory is marked opaque=x first, which alone means nothing
//
// # Contents given at OPEN
//
// In passthrough mode, where each OPEN is asked for, the first one of a small lower
// file that is for reading only has its contents given to the kernel (given.go):
//
//	1 under passing.mu: nobody has it open and nobody ever had (flagOpened), it is lower; it counts
//	  as open, and handles.giving is there          2 the layer's file is read
//	3 FUSE_NOTIFY_STORE of all of it                4 giving is closed           5 OPEN is answered
//
// The kernel puts what it is given in place of what it has, also of what a mapping has
// changed or a write has left there, waits for pages that a READ is at work on, and lets
// the file grow. So between 1 and 4 there must be no page of it, no READ, and no change:
//
//   - Pages come from READ, WRITE and mappings, all by an OPEN, and RELEASE comes after the last of these. There
//     was none before 1, and those that come later are answered after 4.
//   - Who changes a file (OPEN for writing, O_TRUNC, SETATTR of the size) sets flagOpened first, under
//     passing.mu, and waits for giving; then it is copied up and truncated. Before: nothing is given. After:
//     4 is over. WRITE, FALLOCATE and COPY_FILE_RANGE need such an OPEN.
//   - A copy-up of attributes leaves the contents as they are.
//   - The size is the one that the kernel was told; a file that is longer than that is not given. Of one that
//     is shorter the kernel asks for the last page.
//
// So 3 never waits for a READ, for which a server that was killed in it would leave pages
// locked for good. FORGET cannot come before 5. A kill leaves what the kernel has, which is
// right. Only lower files: an upper one is passed through. Where no OPEN is asked for, all
// this cannot be known: docs/adr/0063.
//
// # Failure
//
// Open reads nothing. A layer that is missing or answers EIO makes the calls
// that need it fail with a sentence that names it; nothing panics, the rest of
// the tree goes on. A look-up never passes over a layer that it could not read:
// what that layer hides would come back.
//
// A system call that fails before the step that makes a change leaves the tree as it
// was, and the caller is told. What fails after it (a directory's times that are put
// back, an entry of the index that nobody needs, a count of links) is only said in the
// log: the change is there. TestFaults has each call fail.
package fuseoverlay
