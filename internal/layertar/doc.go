// Package layertar moves layers in and out as tar streams.
//
// In: Import (a reader) and Push (writes) recognise the compression by
// content, hash both forms while they stream, write the tar-split record and
// extract into a directory given as a descriptor; no name leaves it.
// Out: Split gives back the very bytes that were imported; Generate makes a
// new stream from an overlay upper or from two trees; Changes and Size come
// from the same walk.
//
// # An import
//
//	source ─ tap ─ decoder ─ blocks ═╤═ parser ─ plan ─ applier ═ batches ═╤═ writers ─ files
//	        (hash)                   ╘═ hash                              ╘═ recorder ─ tar-split record
//
// A ═ is a hand-over to another goroutine. feed (flow.go) reads and
// decompresses ahead; one hashes what comes out; the caller's (or Push's)
// parses and makes every name, in the stream's order; up to four write files
// and set their attributes; one writes the record, in order (pipe.go). Content
// is not copied on the way: a piece of a block is held by everyone who needs
// it, and the block is filled again when all have let go. Memory is bounded by
// the number of blocks (20 of 256 KiB) and of batches; descriptors by the
// batches, too. A zstd frame whose window is over 8 MiB is decoded by package
// longzstd, which has the window in a file (zstd.go), and every xz stream by
// package xz, which has larger dictionaries in one.
//
// The parser (header.go, pax.go, sparse.go, parser.go) decodes; planMember
// (plan.go) judges, and is a pure function; the applier (apply.go, resolve.go,
// attrs.go, marks.go) executes. Every byte goes to the recorder, either raw or as a
// file that the directory gives back: sparse members are raw, since a file
// does not tell how its holes were written.
//
// # Tables of contents
//
// A zstd:chunked stream ends with a table of its contents, by which others fetch
// single files and tell layers apart. Import keeps it on request (toc.go);
// CheckTOC (toccheck.go) gives the recorded stream back and compares every
// member with the table: one that says anything else than its stream is not
// kept, since others take its word for the layer.
//
// # A comparison
//
//	names, sorted ─ stats, attributes? ═╗
//	                                    ╠═ pairs ─ events
//	names, sorted ─ stats, attributes? ═╝
//
// Each directory's two listings are read by a goroutine each (names.go), in
// parts of 64 entries; names take a few bytes each, whatever else a directory has, and
// long lists are made one at a time (union.many, under which nothing is locked).
//
// # A native walk
//
//	listing of a directory: a  b  c  …  x  y  z
//	           the walk's goroutine →      ← a second one, into memory
//
// A subdirectory is opened and listed, with its own marks; of a name whose type is
// told no more is asked. Changes looks in the layers below which names are there,
// by a directory opened there without a look before; of a directory of few names
// in which something is new or gone it asks no more, since it is a change for that
// (shows). What a walk holds of one name is used for the next (level), so nobody keeps it.
//
// An upper is read by short system calls, most of them for subdirectories. So
// where a listing has at least four, a second goroutine walks them from its end
// (ahead.go), and keeps what its user makes of them (changes, a sum, whole
// members), in all at most 4 MiB. The walk takes that when it is there. Where the
// second one meets an error, a hard link in a diff, or the end of its room, it
// forgets the subdirectory, and the walk's does it itself: errors and first
// names are told by one goroutine, and what comes out is the same bytes. There is
// one such goroutine at a time; it ends before its listing's directory is closed.
//
// # Trees that change
//
// The tree may be a running container's. What goes away, or gives its name to
// something else, between the listing and the first byte that is told of it is
// passed over as if it had not been listed (vanish.go): in a comparison it is
// a deletion. A regular file's header, attributes and content are all read by
// one descriptor, so they are of one file, whatever has its name by then; one
// that shrinks while it is read is filled up with zeros. Hard links
// lead to names that were written only.
//
// # Locks
//
//	Push.writeMu → flow.mu
//	tail.mu (which subdirectories are taken), room.mu: leaves
//
// Channels: pipe.order before pipe.work, both by the parser's goroutine, which
// holds no lock then; writers and the recorder only receive, and take flow.mu
// to give a block back. So each hand-over ends, since those who receive never
// wait for the parser.
//
// flow.mu guards the queue and, for a Push, the bytes that a Write has not
// handed over yet; it is held over no I/O. Both waits of the feeding goroutine and
// the parser's are on flow.changed, so that "the import has consumed
// everything" is one state that Boundary can see: nothing pending, the feeder
// waiting in Read, no block queued, the parser waiting for one. The parser's
// and the decoder's own fields are read by Boundary only then.
//
// No goroutine outlives Import, Finish or Abort.
//
// # Safety
//
// Names are cleaned against the layer's root, as a chroot would take them.
// A parent is opened by one openat2 that refuses symlinks; only when there is
// one is the path walked, component by component, with symlinks interpreted
// in the layer: absolute ones from its root. One that climbs over the root or leads to
// nothing in the layer is refused. The last component is never followed: what
// stands in the way is removed first. Attributes that are an overlay's
// bookkeeping are never set, and never exported. Directories' times and closed
// modes come last, by names that are resolved again in the same way.
// The directory must be the import's alone meanwhile: it is a stage.
//
// # Kills
//
// Nothing here is renamed or published, and nothing synced unless SyncFiles asks
// for it: then each file before it is closed, and every directory after their
// late attributes, those deeper first. A kill leaves a partly filled
// directory and a record that gzip finds cut off; both are in a stage, which
// package store discards whole. The order is: content and attributes of each
// member, directories' times, the record's end, and then the Result, which is
// what a caller publishes by.
//
// # Agreement
//
// Results are those of containers-storage 1.43, except where it loses
// content; the tests run it as their oracle. Deviations: two members of one
// name are refused before the second is written, as is one that takes the place
// of what the stream has made under its name (a file of a directory that holds
// others), since neither could be given back; a symlink that climbs over
// the root is refused, where a chroot stops at the root; a whiteout or opaque mark spares what
// its own stream made, wherever it stands; a directory in the place of a whiteout is opaque;
// an opaque directory in an upper is an Add and not a Delete; type 7 is a
// regular file; sparse archives come back byte for byte; ACLs are exported;
// an attribute without a value is set; a hard link's own owner, mode and time
// are not looked at; attributes are set before the mode, whose group bits then
// are the mask of an access ACL; in a store of a single ID a set-ID bit is on
// disk only where the owner is root;
// owners are named only if they are root's; siblings in a generated diff are
// ordered by name within their directory for every driver; of the attributes
// only user.*, capabilities and ACLs are exported.
package layertar
