package layertar_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/layertar"
)

// zstdFrame is one frame with a window of 1<<log bytes (RFC 8878, 3.1.1), of one raw block.
func zstdFrame(log int, content []byte) []byte {
	block := len(content)<<3 | 1 // raw, the last
	return slices.Concat([]byte{0x28, 0xb5, 0x2f, 0xfd, 0, byte((log - 10) << 3), byte(block), byte(block >> 8), byte(block >> 16)}, content)
}

// TestZstdWindow: windows are taken as zstd itself takes them without an
// option; a larger one is named, with the limit, and is no damage.
func TestZstdWindow(t *testing.T) {
	t.Parallel()
	member := slices.Concat(rawFile("a", "1"))
	for _, c := range []struct {
		first, second int
		refused       string
	}{
		{23, 23, ""},
		{27, 27, ""},
		{28, 23, "a window of 256 MiB"},
		{31, 23, "a window of 2048 MiB"},
		{23, 28, "a larger window"},
	} {
		stream := slices.Concat(zstdFrame(c.first, member), zstdFrame(c.second, endBlocks))
		_, _, _, err := importTar(t, stream, layertar.ApplyOptions{})
		switch {
		case c.refused == "":
			if err != nil {
				t.Errorf("%d, %d: %v", c.first, c.second, err)
			}
		case !errors.Is(err, errno.ErrBadStream) || !strings.Contains(err.Error(), c.refused) || !strings.Contains(err.Error(), "128 MiB") || strings.Contains(err.Error(), "damaged"):
			t.Errorf("%d, %d: %v", c.first, c.second, err)
		}
	}
}
