// Package store keeps the records of layers, images and containers in the
// files that podman, buildah, skopeo and CRI-O use, and the rules between
// them. It works on their stores, beside them, at the same time.
//
// # Vocabulary
//
// A record is one object's element in a JSON file (`<root>/<driver>-layers/
// layers.json`, volatile-layers.json, and the like for images and containers;
// docs/on-disk.md). A state is everything that was loaded at one moment; it
// is immutable and numbered by a generation, which grows with every
// difference that is loaded or made. A Tx is a state with its questions:
//
//	View(ctx, func(*Tx) error)          a state that is at least as new as the call
//	Update(ctx, func(*WriteTx) error)   the newest state, changed and saved, or not
//
// Records handed out belong to everyone and are never modified. Slow work
// (making, filling, diffing, removing) is not in transactions: doc_lifecycle.go.
//
// # Locks
//
// Locks of one line are taken nested, from left to right; what a branch ends
// in is let go before another is taken:
//
//	userns.lock (a file; while a container whose ID maps were chosen is published)
//	Store.gate (a channel of one: loads and writes of this process)
//	├── layers.lock [→ the image store's layers.lock] → images.lock → containers.lock (files; shared to load, exclusive to write)
//	│   ├── mountpoints.lock (file; for each load and each save of the table)
//	│   └── lockfile's own (queue → file → mu)
//	└── hub.mu (a leaf; nothing is called under it)
//
// With a separate image store (Options.ImageStore) images.lock is there, and
// layers have a file and a lock in each of the two places. In a transient store
// containers.lock is in the run root.
//
// storage.lock, which peers take before layers.lock, guards nothing that we
// write; it is not taken. Additional stores are read with no lock: their files
// are replaced by renames. Files are locked by open file description, which
// conflicts with the peers' POSIX locks; waits poll and end with the context
// or after Options.LockTimeout (ErrTimeout, naming the holder).
//
// Nobody outside is called with the gate or a lock held, but Update's function
// and, for what it defers with after, nobody. View in Update's function (or
// meanwhile in another goroutine) takes nothing: it is served the state from
// before the Update, or what the Update has saved once it is over.
//
// # Reading
//
// A View costs one system call while nothing was written in the store's
// directories (quiet.go), else a comparison of the last-writer tokens and of
// each file's inode, size and time; only when those differ are read locks
// taken and the changed files read: token first, then the file. All of them
// are read under those locks, as text; the records of a kind are decoded when
// the first question about it is asked (part.go), from that text and with no
// lock, so that a state is of one moment however late its parts are decoded,
// and who lists images pays for no layers. (A brief store keeps a long file
// open in place of its text: what replaces it is another file.) Records whose text is the same are
// used again, so that a difference between states is found by comparing
// pointers.
//
// # Writing
//
// The steps of an Update, and what a kill after each leaves:
//
//	the gate and the three locks are taken     nothing: the kernel frees them
//	what others wrote is loaded                nothing
//	records flagged incomplete are swept (a    each is gone, or still flagged
//	text that lacks the word is not decoded)
//	the function changes a copy of the sets    nothing
//	for each kind that changed (layers, images, containers; the other way round
//	when records went), so that no saved record refers to one that is not there:
//	  save:1  a fresh token is written         readers load the old file again: no harm
//	          the text goes to .tmp-layers.json<digits>, is synced
//	                                           a temporary file: swept at the next open,
//	                                           which looks for its usual name
//	          it is renamed over layers.json   the new file, whole
//	  save:2  the directory is synced          the same, also after a power loss
//	the state is published, the locks let go   readers of this process see it
//
// An Update of several kinds that is killed between two of them has saved the
// first: an object may then be there that nothing refers to yet or any more,
// never the other way round. What must be all or nothing across kinds has a
// journal (doc_lifecycle.go). When a save fails half way, memory keeps what is
// known to be saved and everything is loaded again at the next look.
//
// mountpoints.json is saved by editMounts in the same steps under its own lock.
//
// # Events
//
// When a state is published the difference to the one before is queued in the
// hub. One goroutine takes each in order: state N is loaded (View shows it) →
// every subscriber is called (kernel caches are let go of there) → N is visible
// in Events. So whoever saw N in Events reads N or newer everywhere. The ring
// is bounded; what fell out of it is reported as a gap. Two goroutines live as
// long as the Store: the hub's and the watcher's, which looks for foreign
// changes when the kernel notifies and once a second; both end at Close.
//
// # Damage
//
// Nothing on disk keeps a store from opening, but for files that may not be
// read. An element that is no record (no ID, or one that is unfit for a path)
// is kept in its file and not shown; a record with a member of a wrong type is
// shown, cannot be changed, can be deleted; of two records with one ID the
// later counts, of two with one name the later keeps it, and nothing is
// rewritten because of a read. A file that ends too early shows the records
// before that place and its kind is read-only (ErrDamaged) until repaired.
package store
