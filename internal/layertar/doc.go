// Package layertar moves layers in and out as tar streams.
//
// In: Import (a reader) and Push (writes) recognise the compression by
// content, hash both forms while they stream, write the tar-split record and
// extract into a directory given as a descriptor; no name leaves it.
// Out: Split gives back the very bytes that were imported; Generate makes a
// new stream from an overlay upper or from two trees; Changes and Size come
// from the same walk.
package layertar
