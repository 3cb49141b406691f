package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/plyfs/plyfs/tests/internal/timing"
)

// contestant is one program on one line.
type contestant struct {
	name string
	// command is run and measured; before and after are not measured.
	command       []string
	before, after func() error
}

// sample is what one run of a command took.
type sample struct {
	wall, cpu time.Duration
	rss       int64 // bytes
}

// compare runs the contestants in turn and prints a table of medians. The
// first one is ours, and ratios are to it.
func (b *bench) compare(title string, cs ...contestant) error {
	fmt.Printf("\n%s (medians of %d rounds)\n", title, b.rounds)
	got := make([][]sample, len(cs))
	for range b.rounds {
		for i := range cs {
			s, err := measure(&cs[i])
			if err != nil {
				return fmt.Errorf("%s: %w", cs[i].name, err)
			}
			got[i] = append(got[i], s)
		}
	}
	base := median(got[0], func(s sample) float64 { return s.wall.Seconds() })
	fmt.Printf("  %-28s %9s %7s %8s %8s\n", "", "ms", "ratio", "CPU s", "MiB")
	for i, c := range cs {
		wall := median(got[i], func(s sample) float64 { return s.wall.Seconds() })
		cpu := median(got[i], func(s sample) float64 { return s.cpu.Seconds() })
		rss := median(got[i], func(s sample) float64 { return float64(s.rss) / (1 << 20) })
		fmt.Printf("  %-28s %9.1f %7.2f %8.3f %8.1f\n", c.name, wall*1e3, wall/base, cpu, rss)
	}
	return nil
}

func median(s []sample, of func(sample) float64) float64 {
	var v []float64
	for _, x := range s {
		v = append(v, of(x))
	}
	return timing.Median(v)
}

func measure(c *contestant) (s sample, err error) {
	if c.before != nil {
		if err := c.before(); err != nil {
			return s, err
		}
	}
	cmd := exec.Command(c.command[0], c.command[1:]...)
	var text bytes.Buffer
	cmd.Dir, cmd.Stderr = "/", &text
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		return s, err
	}
	defer func() { _ = null.Close() }()
	cmd.Stdout = null
	start := time.Now()
	err = cmd.Run()
	s.wall = time.Since(start)
	if err != nil {
		return s, fmt.Errorf("%q: %w: %s", c.command, err, text.String())
	}
	s.cpu = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	if u, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		s.rss = u.Maxrss << 10
	}
	if c.after != nil {
		err = c.after()
	}
	return s, err
}
