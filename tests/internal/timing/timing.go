// Package timing is what the project's benchmark programs share.
package timing

import (
	"fmt"
	"math"
	"os/exec"
	"slices"
)

// Median returns the middle one of v, the upper of the two where there are
// two, and 0 of none.
func Median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	v = slices.Clone(v)
	slices.Sort(v)
	return v[len(v)/2]
}

// Geomean returns the geometric mean of v, which are above 0; NaN of none.
func Geomean(v []float64) float64 {
	sum := 0.0
	for _, x := range v {
		sum += math.Log(x)
	}
	return math.Exp(sum / float64(len(v)))
}

// Tool runs a command in /; what it printed is in the error.
func Tool(args ...string) error { return ToolIn("/", args...) }

// ToolIn runs a command in dir.
func ToolIn(dir string, args ...string) error {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%q: %w: %s", args, err, out)
	}
	return nil
}
