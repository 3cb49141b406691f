package layertar

import (
	"fmt"
	"strconv"
)

// Limits bound a stream. Sizes are in bytes; a zero field means its default
// (DefaultLimits), a negative one no limit.
type Limits struct {
	Entries    int64 // members
	Name       int64 // a member's name or link target
	Header     int64 // a PAX header or GNU long name, as stored
	Xattrs     int64 // all xattr names and values of a member
	FileSize   int64 // one member's apparent size
	Total      int64 // the decompressed stream
	Components int64 // path components of a name
	// Ratio is how many times a stream may be larger than its compressed
	// form; it counts from ratioFrom bytes on.
	Ratio int64
}

// ratioFrom is what a stream may have whatever its compression.
const ratioFrom = 1 << 20

// DefaultLimits are generous for any real image and bound what a hostile
// stream can take: names are those that a system call accepts, PAX headers as
// large as Go's archive/tar allows them, 16 TiB is ext4's largest file, and
// gzip makes no more than 1032 of one; zstd and xz make more of zeros, as empty
// disks' images are.
func DefaultLimits() Limits {
	return Limits{
		Entries: 16 << 20, Name: 4095, Header: 1 << 20, Xattrs: 1 << 20,
		FileSize: 16 << 40, Total: 1 << 40, Components: 1024, Ratio: 100_000,
	}
}

func (l Limits) withDefaults() Limits {
	d := DefaultLimits()
	for _, f := range [...]struct{ have, def *int64 }{
		{&l.Entries, &d.Entries}, {&l.Name, &d.Name}, {&l.Header, &d.Header}, {&l.Xattrs, &d.Xattrs},
		{&l.FileSize, &d.FileSize}, {&l.Total, &d.Total}, {&l.Components, &d.Components}, {&l.Ratio, &d.Ratio},
	} {
		if *f.have == 0 {
			*f.have = *f.def
		}
	}
	return l
}

// memberName is how sentences name a member.
func memberName(name string, offset int64) string {
	if name == "" {
		return fmt.Sprintf("the member at byte %d", offset)
	}
	return fmt.Sprintf("member %s at byte %d", strconv.Quote(clip(name)), offset)
}

func quoteByte(b byte) string { return strconv.Quote(string(rune(b))) }

func quote(s string) string { return strconv.Quote(s) }

func utoa(n uint32) string { return strconv.FormatUint(uint64(n), 10) }
