// Package overlay is the driver that keeps each layer's own changes in a
// directory and lets the kernel's overlay filesystem, or a mount program,
// merge it with those of its parents.
//
// # On disk
//
// The form is the one that the containers tools share:
//
//	<root>/overlay/
//	  .has-mount-program   "true" or "false": how the layers' whiteouts are written
//	  l/<LINK>             symlink → ../<ID>/diff; LINK is 26 characters of base32
//	  <ID>/diff/           the layer's own content
//	  <ID>/link            LINK
//	  <ID>/lower           "l/<LINK of parent>:l/<LINK of its parent>…"; none for a base layer
//	  <ID>/limits          "BYTES INODES" for our mount program; with project quotas <ID> is a project
//	  <ID>/work/ merged/   for the mount; empty/ in base layers, for their read-only mount
//	<run>/overlay/<probe>-<true|false>   results of probes, removed to probe again
//
// # Steps, and what a kill between them leaves
//
//	Create    mkdir stage/ID, diff, work, merged, (empty); files link, lower    a part of the stage
//	Publish   1 rename stage/ID → overlay/ID     before: the stage; after: a layer that no l/ names,
//	          2 symlink l/LINK → ../ID/diff      which Mount of a child makes again and Retire takes
//	          3 fsync of link, lower, ID, l/, the home and the stage, at once
//	Exchange  1 renameat2(EXCHANGE)              link and lower are the same in both
//	          2 fsync as above
//	Retire    1 remove l/LINK                    as after step 1 of Publish
//	          2 rename overlay/ID → stage/ID     a stage
//	          3 fsync of l/, the home and the stage, at once
//
// A power loss before a method returns may undo any of its steps, and leave
// link or lower empty in a published layer: the record is flagged `incomplete`
// from before Publish until after it, and Has calls such a layer damaged. The
// layer's content is synced, or not, by whoever writes it.
//
// So Retire ends whatever Publish or Retire began. Mount and New only add what
// is missing (l/ links, merged, work, empty, the home, probe results), each by
// one system call, or by temporary file and rename.
//
// A layer with limits is made a project of its own, with a quota, before
// anything is in its directory. Retire and Exchange take the quota of what goes
// away back; a kill before them leaves a few bytes in the filesystem's quota
// file, under a number that is not chosen again.
//
// Probes mount in `<root>/overlay/plyfs-probe*`; one left by a kill is removed
// by the next probing, and never listed.
//
// # Locks
//
// None: the driver is immutable after New; see package drivers for who
// serialises what.
package overlay
