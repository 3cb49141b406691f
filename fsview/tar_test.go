package fsview_test

import (
	"archive/tar"
	"bytes"
	"strings"
	"testing"
	"time"
)

// tarOf makes an archive of members `name=content`, `dir/` or `name->target`.
func tarOf(t testing.TB, members ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	tw := tar.NewWriter(&b)
	for _, m := range members {
		h := &tar.Header{Name: m, Mode: 0o644, ModTime: time.Unix(1700000000, 0), Format: tar.FormatPAX}
		body := ""
		switch {
		case strings.HasSuffix(m, "/"):
			h.Typeflag, h.Mode = tar.TypeDir, 0o755
		case strings.Contains(m, "->"):
			name, target, _ := strings.Cut(m, "->")
			h.Typeflag, h.Name, h.Linkname = tar.TypeSymlink, name, target
		default:
			name, content, _ := strings.Cut(m, "=")
			h.Typeflag, h.Name, body = tar.TypeReg, name, content
			h.Size = int64(len(body))
		}
		if err := tw.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := tw.Write([]byte(body)); err != nil {
			t.Fatal(err)
		}
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}
