// Package demo makes the image that `make run` shows: two small layers whose
// every byte is made by the code here, so that the image, its layers and its
// configuration have the same digests wherever they are built.
//
//	layer 1  /bin/hello (a static program), /bin/hi (a hard link to it),
//	         /etc/{greeting,os-release,passwd,group,draft}, /etc/motd (a symlink), /tmp
//	layer 2  /etc/greeting changed, /etc/draft removed (a whiteout), /srv/notes
//
// /bin/hello is an ELF file of two hundred bytes that writes one line and
// ends, for amd64 or arm64; `podman run --rm localhost/hello` runs it.
package demo
