// Package interop holds the tests that run the real programs side by side:
// plyfs through its mount, and podman, buildah, skopeo and containers-storage
// on the same store. They are made of file operations and command lines only.
package interop
