// Package archive takes images into a store from OCI layouts (a folder, or the
// archive of one) and docker-save archives, and gives images out in both forms.
//
// Formats: the OCI image layout and image manifest of the OCI image
// specification 1.1; docker-save archives as skopeo and podman write and read
// them (manifest.json with Config, RepoTags and Layers).
//
// # Import: order of steps, and what a kill leaves
//
//	the archive is a file that has no name     nothing
//	its members are found, the documents read  nothing
//	and checked, all that they refer to must
//	be there
//	each layer that the store has not (same    layers that nothing refers to yet
//	parent, same diff digest) is staged, its
//	digests compared, and committed, base
//	first; of those that it has the digests
//	are compared only
//	the image is made                          an image without its names
//	its names are given to it, moving them     done
//	from images that have them
//
// A failure removes the layers that were made. No lock is held but within the
// store's own calls. A layer's ID is what the peers give it, found in their
// stores: the diff digest for a base layer, else the SHA-256 of the parent's ID,
// a plus sign and the diff digest, all in hexadecimal; an image's ID is the
// digest of its configuration. So an image that was exported and is imported
// again has the same ID everywhere.
//
// # Export
//
// Layers are given out as plain tars, since the store keeps no compressed ones:
// the manifest is the image's own where it names those, else one made of it.
// Every blob's digest is compared while it is written.
package archive
