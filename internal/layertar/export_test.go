package layertar

import (
	"io"
)

// MemberNames lets tests run the parser alone.
func MemberNames(r io.Reader, lim Limits) ([]string, error) {
	p := &parser{in: r, raw: func([]byte) {}, lim: lim.withDefaults()}
	var names []string
	for {
		h, err := p.next()
		if err == io.EOF { //nolint:errorlint // next returns it bare
			return names, nil
		}
		if err != nil {
			return nil, err
		}
		names = append(names, h.name)
	}
}
