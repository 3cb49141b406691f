package layertar

import (
	"bytes"
	"strconv"
	"strings"
	"time"
)

// paxRecord is one record of a PAX extended header, in stream order (the
// sparse format 0.0 repeats keys).
type paxRecord struct {
	key   string
	value []byte
}

// parsePax splits the records `LENGTH KEY=VALUE\n` (POSIX.1-2001 pax). ok is
// false when a record's length, `=` or newline is not where it must be.
func parsePax(b []byte) (recs []paxRecord, ok bool) {
	for len(b) > 0 {
		sp := bytes.IndexByte(b, ' ')
		if sp < 1 || sp > 19 {
			return nil, false
		}
		n, err := strconv.ParseUint(string(b[:sp]), 10, 31)
		if err != nil || int(n) > len(b) || int(n) < sp+3 || b[n-1] != '\n' {
			return nil, false
		}
		kv := b[sp+1 : n-1]
		eq := bytes.IndexByte(kv, '=')
		if eq < 1 || bytes.IndexByte(kv[:eq], 0) >= 0 {
			return nil, false
		}
		recs = append(recs, paxRecord{string(kv[:eq]), kv[eq+1:]})
		b = b[n:]
	}
	return recs, true
}

// sparseInfo is what the GNU.sparse records say.
type sparseInfo struct {
	major, minor, name, size, realSize, blocks string
	pairs                                      []string // offset, length, offset, …
}

// version judges the records as Go's archive/tar does: one is set for format
// 1.0; any is false when they do not describe a sparse file.
func (sp *sparseInfo) version() (one, any bool) {
	switch {
	case sp.major == "0" && (sp.minor == "0" || sp.minor == "1"):
		return false, true
	case sp.major == "1" && sp.minor == "0":
		return true, true
	case sp.major != "" || sp.minor != "":
		return false, false
	}
	return false, len(sp.pairs) > 0
}

// paxFields are the values that records have for fields: of several records
// with one key the last counts, and an empty value is none.
type paxFields struct{ path, linkpath, size, uid, gid, mtime, atime string }

func (f *paxFields) set(key, v string) {
	switch key {
	case "path":
		f.path = v
	case "linkpath":
		f.linkpath = v
	case "size":
		f.size = v
	case "uid":
		f.uid = v
	case "gid":
		f.gid = v
	case "mtime":
		f.mtime = v
	case "atime":
		f.atime = v
	}
}

// merge overlays h with the records; an empty value leaves the field as it
// was. The reason is set when a value makes no sense.
func (h *header) merge(recs []paxRecord, sp *sparseInfo) (reason string) {
	var seen map[string]int
	var f paxFields
	for _, r := range recs {
		switch {
		case strings.HasPrefix(r.key, paxXattr):
			if seen == nil {
				seen = map[string]int{}
			}
			h.setXattr(seen, r.key[len(paxXattr):], r.value)
		case strings.HasPrefix(r.key, paxSparse):
			if reason = sp.add(r.key, string(r.value)); reason != "" {
				return reason
			}
		default:
			f.set(r.key, string(r.value))
		}
	}
	for _, kv := range [...][2]string{
		{"path", f.path}, {"linkpath", f.linkpath}, {"size", f.size}, {"uid", f.uid}, {"gid", f.gid}, {"mtime", f.mtime}, {"atime", f.atime},
	} {
		if kv[1] == "" {
			continue
		}
		if reason = h.mergeField(kv[0], kv[1]); reason != "" {
			return reason
		}
	}
	return ""
}

func (h *header) mergeField(key, v string) (reason string) {
	ok := true
	switch key {
	case "path":
		h.name, ok = v, strings.IndexByte(v, 0) < 0
	case "linkpath":
		h.link, ok = v, strings.IndexByte(v, 0) < 0
	case "size":
		h.stored, ok = paxInt(v)
	case "uid":
		h.uid, ok = paxInt(v)
	case "gid":
		h.gid, ok = paxInt(v)
	case "mtime":
		h.mtime, ok = paxTime(v)
	case "atime":
		h.atime, ok = paxTime(v)
	}
	if !ok {
		return "PAX record " + key + " has the value " + strconv.Quote(clip(v))
	}
	return ""
}

// clip shortens what a stream says before it goes into a sentence.
func clip(s string) string {
	const most = 200
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}

// setXattr adds an attribute; of two with one name the last counts. seen is
// where each is.
func (h *header) setXattr(seen map[string]int, name string, value []byte) {
	if i, ok := seen[name]; ok {
		h.xattrs[i].value = value
		return
	}
	seen[name] = len(h.xattrs)
	h.xattrs = append(h.xattrs, xattr{name, value})
}

func paxInt(s string) (int64, bool) {
	v, err := strconv.ParseInt(s, 10, 64)
	return v, err == nil
}

// paxTime reads seconds with a decimal fraction, to the nanosecond.
func paxTime(s string) (time.Time, bool) {
	whole, frac, _ := strings.Cut(s, ".")
	sec, err := strconv.ParseInt(whole, 10, 64)
	if err != nil || strings.Trim(frac, "0123456789") != "" {
		return time.Time{}, false
	}
	frac = (frac + "000000000")[:9]
	ns, err := strconv.ParseInt(frac, 10, 64)
	if err != nil {
		return time.Time{}, false
	}
	if strings.HasPrefix(whole, "-") {
		ns = -ns
	}
	return time.Unix(sec, ns), true
}

func (sp *sparseInfo) add(key, v string) (reason string) {
	switch key {
	case paxSparseMajor:
		sp.major = v
	case paxSparseMinor:
		sp.minor = v
	case paxSparseName:
		sp.name = v
	case paxSparseRealSize:
		sp.realSize = v
	case paxSparseSize:
		sp.size = v
	case paxSparseBlocks:
		sp.blocks = v
	case paxSparseMap:
		if sp.pairs = nil; v != "" {
			sp.pairs = strings.Split(v, ",")
		}
	case paxSparseOffset, paxSparseNumBytes:
		if (len(sp.pairs)%2 == 0) != (key == paxSparseOffset) {
			return "GNU.sparse.offset and numbytes do not alternate"
		}
		sp.pairs = append(sp.pairs, v)
	}
	if len(sp.pairs) > 2*maxSparseExtents {
		return "sparse map has too many extents"
	}
	return ""
}
