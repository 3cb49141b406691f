// Package mountprogram lets podman and buildah work with a mount program
// (overlay.mount_program), as root and as an ordinary user, and looks at all
// that they then do: testdata/acceptance.sh, whose checks print "ok" or
// "FAIL". It is run with fuse-overlayfs too, which proves the script; what the
// two built must be the same as what the kernel's overlay gives, file by file.
// testdata/packages.sh does the same with real packages.
package mountprogram
