package layertar_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/plyfs/plyfs/internal/layertar"
)

// TestReplaced: a file that is another one, or has other content, by the time
// it is written is told as what it is then: header and content belong together.
func TestReplaced(t *testing.T) {
	t.Parallel()
	for how, want := range map[string]string{
		"printf longer >n; chmod 640 n; setfattr -n user.b -v 2 n; touch -d @1000 n; mv n f": `640 1000 "longer" user.b=2`,
		"printf s >n; touch -d @1000 n; mv n f":                                              `644 1000 "s" `,
		"printf grown >f; touch -d @2000 f":                                                  `644 2000 "grown" user.a=1`,
		": >f; touch -d @2000 f":                                                             `644 2000 "" user.a=1`,
		"chmod 4711 f; touch -d @3000 f":                                                     `4711 3000 "old\n" user.a=1`,
		"ln f z; touch -d @3000 f":                                                           `644 3000 "old\n" user.a=1`,
		"ln -s nowhere n; mv -T n f":                                                         ``,
		"ln -s new n; touch -hd @5 n; mv -T n l":                                             `l 5 new`,
	} {
		for i := range vanishSources("") {
			dir := t.TempDir()
			run(t, strings.NewReader("cd "+dir+"; umask 022; echo old >f; setfattr -n user.a -v 1 f; ln -s to l; touch -hd @500 f l"), "sh", "-e")
			name := "f"
			if strings.HasPrefix(want, "l ") {
				name = "l"
			}
			var out bytes.Buffer
			if err := layertar.GenerateWith(&out, vanishSources(dir)[i], func(path string) {
				if path == name {
					run(t, nil, "sh", "-ec", "umask 022; cd "+dir+"; "+how)
				}
			}); err != nil {
				t.Errorf("%s, source %d: %v", how, i, err)
				continue
			}
			if got := written(t, out.Bytes(), name); got != want {
				t.Errorf("%s, source %d: %s, want %s", how, i, got, want)
			}
		}
	}
}

// written tells mode, time, content and attributes of one member, "" if there is none.
func written(t testing.TB, stream []byte, name string) string {
	t.Helper()
	for r := tar.NewReader(bytes.NewReader(stream)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return ""
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Name != name {
			continue
		}
		if h.Typeflag == tar.TypeSymlink {
			return fmt.Sprintf("l %d %s", h.ModTime.Unix(), h.Linkname)
		}
		b, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		var xs []string
		for k, v := range h.PAXRecords {
			if x, ok := strings.CutPrefix(k, "SCHILY.xattr."); ok {
				xs = append(xs, x+"="+v)
			}
		}
		return fmt.Sprintf("%o %d %q %s", h.Mode&0o7777, h.ModTime.Unix(), b, strings.Join(xs, " "))
	}
}

// TestReplacedMeanwhile: while a writer replaces files all the time, every one
// in a diff is one that was there, whole: its size, time and attribute say
// what its content does.
func TestReplacedMeanwhile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	put := func(i int) error {
		tmp := filepath.Join(dir, "tmp")
		n := i % 50
		if err := os.WriteFile(tmp, bytes.Repeat([]byte{byte('a' + n%26)}, n), 0o644); err != nil {
			return err
		}
		return errors.Join(os.Chtimes(tmp, time.Time{}, time.Unix(int64(n), 0)), os.Rename(tmp, filepath.Join(dir, "f"+strconv.Itoa(i%7))))
	}
	for i := range 7 {
		if err := put(i); err != nil {
			t.Fatal(err)
		}
	}
	quit, ended := make(chan struct{}), make(chan error)
	go func() {
		for i := 0; ; i++ {
			select {
			case <-quit:
				ended <- nil
				return
			default:
				if err := put(i); err != nil {
					<-quit
					ended <- err
					return
				}
			}
		}
	}()
	for range 300 {
		for i, s := range vanishSources(dir) {
			var out bytes.Buffer
			if err := layertar.Generate(context.Background(), &out, s); err != nil {
				t.Errorf("source %d: %v", i, err)
				continue
			}
			if err := consistent(out.Bytes()); err != nil {
				t.Errorf("source %d: %v", i, err)
			}
		}
	}
	close(quit)
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func consistent(stream []byte) error {
	for r := tar.NewReader(bytes.NewReader(stream)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		b, err := io.ReadAll(r)
		if err != nil {
			return err
		}
		n := int(h.ModTime.Unix())
		if h.Name != "tmp" && !bytes.Equal(b, bytes.Repeat([]byte{byte('a' + n%26)}, n)) {
			return fmt.Errorf("%s of second %d is %q", h.Name, n, b)
		}
	}
}
