// Package store keeps the records of layers, images and containers in the
// files that podman, buildah, skopeo and CRI-O use, and the rules between them.
package store
