// Package store also has an order of steps in which layers, images and
// containers come and go, such that a kill at any of them leaves what follows.
//
// # The extract area
//
// `<root>/plyfs/` holds what no record names yet or any more. An entry is made
// of a lock file and a directory:
//
//	plyfs/<16 hex>.lock       locked for writing (OFD) while its owner lives
//	plyfs/<16 hex>/d/         the driver's: layers on their way in or out
//	plyfs/<16 hex>/s/         ours: tar-split.gz, toc, journal.json, data/, trash
//
//	entry:1   the lock file is made and locked      an empty entry: swept
//	entry:2   the entry is in use, and about to go  swept, after its journal is settled
//	entry:3   the directory is removed              a lock file: swept
//
// With a separate image store there is such an area in its root too: what is
// to be renamed into a root is made in that root's area, and what is moved out
// of a root goes to its area, in an entry that is the first one's twin.
//
// The lock file is made and locked first and removed last, so that a directory
// whose lock can be taken has no owner: whoever opens the store next takes the
// lock, settles the journal if there is one (below), and removes the tree with
// no store lock held. Removal never opens more than a few dozen descriptors,
// however deep the tree, and stops when its context ends, or after
// Options.RemoveWithin; what is left then goes on in the background until Close,
// and is swept at the next open.
//
// # Making a layer (CreateLayer, StageLayer … Commit)
//
//	create:1  the entry is made                     a kill leaves an entry: swept
//	create:2  the driver makes the layer in d/      swept
//	create:3  the stream is extracted into it, its  swept
//	          tar-split record written to s/, all
//	          of it synced (syncfs); its data items
//	          in s/data, synced
//	          --- locks: layers → images → containers
//	          the parent is looked up again, ID and names must be free
//	create:4  the record is saved, incomplete       a record without directories: swept
//	create:5  the driver renames d/<id> into its    a record with directories, still
//	          home and links it                     incomplete: swept, also by the peers
//	create:6  the tar-split file is renamed to      as create:5
//	          <id>.tar-split.gz, s/data with its
//	          data items to <id>/, and the table
//	          of contents of a zstd:chunked stream
//	          to its place among them
//	create:7  the record is saved, complete         the layer is there, whole
//	          --- locks let go
//	create:8  the entry is removed                  an empty entry: swept
//
// No store lock is held before create:4. A failure (not a kill) between 4 and
// 7 retires the directories and drops the record again under the same lock.
//
// # Deleting a layer
//
//	delete:1  an entry is made                      swept
//	          --- locks; the rules are checked
//	delete:2  the record is saved, incomplete       swept: the deletion is completed
//	delete:3  the driver renames the layer into d/, as delete:2
//	          its tar-split and data go to s/
//	delete:4  the record is dropped, and its mount  gone; the entry is swept
//	          count
//	          --- locks let go
//	delete:5  the entry is removed, the last of it perhaps in the background
//
// # Journals
//
// What takes more than one saved file and is not covered by the flag
// `incomplete` is written down first, in s/journal.json of the operation's
// entry (durably). It is settled under the write locks by whoever sweeps the
// entry; each rule below looks at the state only, so settling twice, or after
// a peer has worked on the store, does no harm.
//
//   - create (image, container): the record exists → it was done. Else its data
//     directory goes to the trash, and the container's layer too, with its
//     record if it has one, unless something uses it, or it is still in the
//     stage (then what has its ID in the driver's home is not ours).
//   - delete (image, container): the record exists → nothing had happened. Else
//     its directories go to the trash and those of the named layers that
//     nothing uses are deleted, and of those without a record the directories.
//   - exchange (additive diff): the published directory has the inode number
//     that the journal names → the swap was made: the tar-split file is put in
//     place (or removed) and the record gets the journal's digests, if it has
//     the old ones still. Else nothing had happened.
//   - seal (digests for a layer that has none): the entry has the tar-split
//     file no more, so it is in place → the record gets the digests, unless the
//     layer was written to since: then the file goes to the trash. Else nothing
//     had happened.
//   - data (one big data item): the file in place has the journal's inode
//     number → the record gets its size and digest. Else nothing had happened.
//   - map (mapped copy of an image's top layer): the image lists the layer →
//     it was done. Else the layer is deleted, if it is there and unused.
//   - undata (removal of an item): the record names the item → nothing had
//     happened. Else the file goes to the trash.
//
// # Making an image or a container
//
//	make:1  an entry; the data items in s/data,     swept
//	        synced; the container's layer in d/
//	make:2  the journal is written                  swept
//	        --- locks; what it is made from is looked up again
//	make:3  (container) the layer is published as   directories without a record, then a
//	        in create:5 to create:7: the journal    layer without a container: moved to the
//	        is there in place of create:4           trash, or deleted
//	make:4  s/data is renamed to <kind>/<id>        moved to the trash, having no record
//	make:5  the record is saved                     done
//	        --- locks let go
//	make:6  the entry is removed
//
// Where the container has ID maps that no layer of its image has, and the
// driver does not map when it mounts, the image first gets such a copy of its
// top layer, an operation of its own that stays if making the container fails:
//
//	map:1  the copy is in d/, owners mapped, synced; its tar-split  swept
//	       record in s/
//	map:2  the journal is written                                   swept
//	       --- locks; the image's top layer must be as it was
//	map:3  the layer is published as in create:4 to create:7        the layer is deleted again,
//	                                                                the image not listing it
//	map:4  the image's record, which lists it, is saved             done
//	       --- locks let go
//
// # Deleting an image or a container
//
//	drop:1  an entry is made                        swept
//	        --- locks; the rules are checked, the layers that go with it found
//	drop:2  the journal is written                  swept: the record is there
//	drop:3  the record is dropped and saved         the deletion is completed
//	drop:4  its directories are renamed into s/     completed
//	        (that in the run root, another
//	        filesystem, is removed in place)
//	drop:5  the records of its layers are dropped,  completed: the directories are moved
//	        saved once, and their mount counts
//	drop:6  the driver renames the layers into d/,  completed
//	        tar-split and data go to s/
//	        --- locks let go
//	        the entry is removed
//
// No record of a layer is ever complete without its directories. Directories
// without a record, which a kill leaves at make:3 and drop:5, are looked at by
// nobody (peers list them in their check) until the journal is settled.
//
// # Additive diffs (StageDiff … Commit)
//
//	swap:1  an entry; the driver makes a copy of    swept
//	        the layer's own content in d/
//	swap:2  the stream is extracted into the copy,  swept
//	        synced
//	swap:3  the journal is written                  swept: the inode is not the staged one
//	        --- locks; the layer must be as it was when it was copied,
//	        not mounted, no parent, used by nothing
//	swap:4  the driver exchanges the two            rolled forward
//	swap:5  the tar-split file and the table of     rolled forward
//	        contents are put in place, or the old
//	        ones moved to s/
//	swap:6  the record is saved                     done
//	        --- locks let go
//	swap:7  the entry, now with the old content, is removed
//
// That the layer is as it was is known from the last-writer token of
// mountpoints.lock, which every mount and unmount changes; when it did change,
// names, inode numbers, sizes and change times of the layer's files are
// compared, with no lock held, and the token looked at again.
//
// # Sealing (Seal, CreateMinimalImage)
//
//	seal:1  an entry; the diff is made and hashed, its tar-split    swept
//	        record in s/, synced
//	        --- locks; the layer must be as it was, not mounted
//	seal:2  the journal is written                                  swept
//	swap:5  the tar-split file is put in place                      rolled forward
//	swap:6  the record is saved                                     done
//	        --- locks let go
//
// # Big data
//
//	data:1  an entry; the new content in s/, hashed, synced    swept
//	data:2  the journal is written                             swept
//	        --- locks
//	data:3  the file is renamed into the object's directory    rolled forward
//	data:4  the record is saved                                done
//	        --- locks let go
//	data:5  the entry, with the replaced content, is removed
//
//	undata:1  an entry; the journal is written                 swept: the record has the key
//	undata:2  the record is saved without the key              completed: the file goes to s/
//	          the file is renamed to s/                        done
//
// # Repairing (Repair)
//
// Each finding is repaired by transactions of its own; a kill leaves those that
// were not begun, and each in one of these states. Objects are deleted as above.
//
//	repair:1  the damaged file has a second name beside it   one copy more; a
//	          (<file>.damaged-<time>); then it is saved      repair makes another
//	repair:2  what has no record is renamed into an entry    swept
//	repair:3  the driver has made links again                a layer that is mended
//
// # Mount counts
//
//	mount:1   mounted                        a mount that nobody counts: the next takes it over
//	mount:2   the count is saved             mounted
//	umount:1  unmounted                      a count without a mount: force sets it to zero
//	          the count is saved             unmounted
//
// `<run>/<driver>-layers/mountpoints.json` is shared with the peers; its lock,
// mountpoints.lock, is a leaf. Under layers.lock and it: mount (when the count
// is zero), then save the count, so that a kill leaves at worst a mount that
// nobody counts: the next mount finds it standing and counts it. Unmounting
// goes the other way round: unmount, then save; a kill between leaves a count
// without a mount, which `force` sets to zero. A layer whose count is above
// zero, but whose mount is not seen here, may be mounted in another mount
// namespace: a second writable mount is refused (EBUSY).
//
// When the last user of a writable mount unmounts a layer whose digests are
// known, its files are looked at with no lock held; if one is newer than the
// tar-split record, digests and record are dropped in a transaction of its own.
// A kill before it leaves what the peers leave: digests that do not fit.
package store
