package spill

import "testing"

// A hash that no run has, but the filter lets through, is looked for between
// any two entries and around them, also where hashes are not spread evenly and
// the first window is far from the place.
func TestSearchForWhatIsNotThere(t *testing.T) {
	t.Parallel()
	for name, base := range map[string]uint64{"low": 0, "middle": 1 << 63, "high": ^uint64(0) - 10*window} {
		r := runs{size: 4 * window}
		run := make([]entry, 0, r.size)
		for i := range uint64(r.size) {
			run = append(run, entry{base + 1 + 2*i, i})
		}
		if err := r.add(run); err != nil {
			t.Fatal(err)
		}
		for i := range uint64(2*r.size + 2) {
			value, ok, err := r.search(0, base+i)
			if want := i%2 == 1 && i < 2*uint64(r.size); err != nil || ok != want || ok && value != i/2 {
				t.Fatalf("%s: %d: %d, %t, %v", name, i, value, ok, err)
			}
		}
		if err := r.close(); err != nil {
			t.Error(err)
		}
	}
}
