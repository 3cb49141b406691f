package fuseoverlay

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strconv"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// The record of where a copied-up file comes from (attribute "origin") is the
// kernel's struct ovl_fb: version 0, magic 0xfb, length, flags, type of the
// file handle, UUID of its filesystem (16 bytes), the handle. Its bytes in
// hexadecimal are the name of the file in the index. An empty record says
// that there is an origin which has no handle.
const (
	originMagic  = 0xfb
	originHeader = 21
	// Flags: the handle's byte order is big-endian; it is any machine's.
	originBigEndian = 1
	originAnyEndian = 2
)

// handleOf is a file handle as name_to_handle_at(2) gives it.
type handleOf struct {
	kind  int32
	bytes []byte
}

// encodeOrigin returns the record of a handle on the filesystem with uuid. It
// is nil when the handle does not fit.
func encodeOrigin(h handleOf, uuid [16]byte) []byte {
	n := originHeader + len(h.bytes)
	if n > 255 || h.kind < 0 || h.kind > 255 {
		return nil
	}
	b := make([]byte, 0, n)
	flags := byte(0)
	if hostIsBigEndian() {
		flags = originBigEndian
	}
	b = append(b, 0, originMagic, byte(n), flags, byte(h.kind))
	b = append(b, uuid[:]...)
	return append(b, h.bytes...)
}

// decodeOrigin is the inverse of encodeOrigin; ok is false for anything else,
// records of other byte orders among them.
func decodeOrigin(b []byte) (h handleOf, uuid [16]byte, ok bool) {
	if len(b) < originHeader || b[0] != 0 || b[1] != originMagic || int(b[2]) != len(b) {
		return h, uuid, false
	}
	if f := b[3]; f&originAnyEndian == 0 && (f&originBigEndian != 0) != hostIsBigEndian() {
		return h, uuid, false
	}
	copy(uuid[:], b[5:originHeader])
	return handleOf{int32(b[4]), b[originHeader:]}, uuid, true
}

func hostIsBigEndian() bool { return binary.NativeEndian.Uint16([]byte{0, 1}) == 1 }

func indexNameOf(origin []byte) string { return hex.EncodeToString(origin) }

// handleForm is how a filesystem's handles hold the inode number.
type handleForm uint8

const (
	formUnknown handleForm = iota
	form32                 // u32 ino, u32 generation: ext4 and most
	form64                 // u64 ino first: xfs with 64 bits, btrfs
	formTmpfs              // u32 generation, u32 low, u32 high
)

// ino returns the inode number that a handle of the form holds.
func (f handleForm) ino(b []byte) (uint64, bool) {
	switch {
	case f == form32 && len(b) >= 4:
		return uint64(binary.NativeEndian.Uint32(b)), true
	case f == form64 && len(b) >= 8:
		return binary.NativeEndian.Uint64(b), true
	case f == formTmpfs && len(b) >= 12:
		return uint64(binary.NativeEndian.Uint32(b[4:])) | uint64(binary.NativeEndian.Uint32(b[8:]))<<32, true
	}
	return 0, false
}

// formOf finds the form of a filesystem (its magic number), and sees that it
// is right for a file of it whose number is known.
func formOf(magic int64, b []byte, ino uint64) handleForm {
	f := form32
	switch magic {
	case unix.TMPFS_MAGIC:
		f = formTmpfs
	case unix.BTRFS_SUPER_MAGIC:
		f = form64
	case unix.XFS_SUPER_MAGIC:
		if len(b) >= 12 {
			f = form64
		}
	}
	if got, ok := f.ino(b); ok && got == ino {
		return f
	}
	return formUnknown
}

// linkRecord keeps the link count of a file whose names are partly below: the
// kernel's attribute "nlink", which says by how much the count shown differs
// from that of the upper file (U) or of the lower one (L).
type linkRecord struct {
	// index is the file's name in work/index; nil: it has none.
	index atomic.Pointer[string]
	diff  int // shown count minus the upper file's, guarded by copyMu
}

// shown returns the count that the tree shows of an upper file with n links.
func (r *linkRecord) shown(n uint32) uint32 {
	if r.index.Load() == nil {
		return n
	}
	return uint32(max(int(n)+r.diff, 0))
}

// formatLinks writes the attribute: base is 'U' or 'L'.
func formatLinks(base byte, diff int) []byte { return fmt.Appendf(nil, "%c%+d", base, diff) }

// parseLinks returns the count shown for an upper and a lower file with so
// many links.
func parseLinks(v string, upper, lower uint32) (int, bool) {
	if len(v) < 3 || v[1] != '+' && v[1] != '-' {
		return 0, false
	}
	n, err := strconv.Atoi(v[1:])
	if err != nil {
		return 0, false
	}
	switch v[0] {
	case 'U':
		n += int(upper)
	case 'L':
		n += int(lower)
	default:
		return 0, false
	}
	return n, n > 0
}
