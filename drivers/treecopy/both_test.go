package treecopy_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/plyfs/plyfs/drivers/treecopy"
	"github.com/plyfs/plyfs/internal/safefs"
)

// list is what every system shows of a tree.
func list(t *testing.T, root string) string {
	t.Helper()
	var out strings.Builder
	first := map[uint64]string{}
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		d, err := safefs.OpenRoot(filepath.Dir(path))
		if err != nil {
			return err
		}
		st, err := d.Stat(filepath.Base(path))
		if err = errors.Join(err, d.Close()); err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		if first[st.Ino] == "" {
			first[st.Ino] = rel
		}
		var text string
		switch {
		case e.Type().IsRegular():
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			text = string(b)
		case e.Type() == fs.ModeSymlink:
			if text, err = os.Readlink(path); err != nil {
				return err
			}
		}
		fmt.Fprintf(&out, "%s is %s mode %o owner %d:%d mtime %d nlink %v %q\n", rel, first[st.Ino], st.Mode, st.UID, st.GID,
			st.Mtime.UnixNano(), st.IsDir() || st.Nlink == 1, text)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// TestBothCopy holds for both implementations: go test -tags portable.
func TestBothCopy(t *testing.T) {
	t.Parallel()
	top := t.TempDir()
	src := filepath.Join(top, "src")
	for _, d := range []string{"a/b/c", "x"} {
		if err := os.MkdirAll(filepath.Join(src, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	stamp := time.Unix(1e9, 0)
	errs := []error{
		os.WriteFile(filepath.Join(src, "a/f"), []byte("text"), 0o640),
		os.WriteFile(filepath.Join(src, "x/empty"), nil, 0o600),
		os.WriteFile(filepath.Join(src, "x/big"), make([]byte, 9<<20), 0o600),
		os.Link(filepath.Join(src, "a/f"), filepath.Join(src, "a/b/c/hard")),
		os.Symlink("../nowhere", filepath.Join(src, "x/link")),
		os.Chmod(filepath.Join(src, "a/b"), fs.ModeSticky|0o711),
		os.Chtimes(filepath.Join(src, "a/f"), stamp, stamp),
		os.Chtimes(filepath.Join(src, "a"), stamp, stamp),
	}
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	dst := filepath.Join(top, "dst")
	if err := treecopy.Copy(context.Background(), src, dst); err != nil {
		t.Fatal(err)
	}
	if got, want := list(t, dst), list(t, src); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if err := treecopy.Copy(context.Background(), src, dst); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a copy over what is there: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := treecopy.Copy(ctx, src, filepath.Join(top, "other")); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled copy: %v", err)
	}
}
