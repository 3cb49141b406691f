package main

import (
	"archive/tar"
	"bufio"
	"errors"
	"fmt"
	"os"
	"time"
)

// writeStream writes a tar of n files of the given size, a thousand a
// directory: d0/f0, d1/f1000, … but for the first thousand, which are spread
// so that d0 to d99 are all there.
func writeStream(path string, n int, size int64) (err error) {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	out := bufio.NewWriterSize(f, 1<<20)
	w := tar.NewWriter(out)
	data := make([]byte, 64<<10)
	for i := range data {
		data[i] = byte(i * 7 >> 3)
	}
	dirs := max(n/1000, 100)
	when := time.Unix(1_600_000_000, 0)
	for d := range dirs {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: fmt.Sprintf("d%d/", d), Mode: 0o755, ModTime: when}); err != nil {
			return err
		}
		for i := d; i < n; i += dirs {
			if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprintf("d%d/f%d", d, i), Mode: 0o644, Size: size, ModTime: when}); err != nil {
				return err
			}
			for left := size; left > 0; left -= min(left, int64(len(data))) {
				if _, err := w.Write(data[:min(left, int64(len(data)))]); err != nil {
					return err
				}
			}
		}
	}
	return errors.Join(w.Close(), out.Flush())
}

// bySize prints what a file and a byte cost, as slopes, and the memory that
// the largest takes.
func (b *bench) bySize() error {
	var counts, sizes []point
	for n := 1000; n <= b.slopes; n *= 10 {
		if err := b.sized(&counts, n, 100, float64(n)); err != nil {
			return err
		}
	}
	for _, mb := range []int64{16, 128, 1024, 2048} {
		if err := b.sized(&sizes, 1, mb<<20, float64(mb<<20)); err != nil {
			return err
		}
	}
	fmt.Printf("\nslopes: apply %.1f µs and export %.1f µs a file of 100 bytes; apply %.2f ns and export %.2f ns a byte of one file\n",
		slope(counts, 0)*1e6, slope(counts, 1)*1e6, slope(sizes, 0)*1e9, slope(sizes, 1)*1e9)
	return nil
}

// point is the time of an apply and of an export at a size.
type point struct {
	x float64
	y [2]float64
}

func (b *bench) sized(to *[]point, files int, size int64, x float64) (err error) {
	file := b.dir + "/sized.tar"
	if err := writeStream(file, files, size); err != nil {
		return err
	}
	s, err := b.newStore(b.ours, "sized")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.remove(), os.Remove(file)) }()
	p := point{x: x}
	for i, args := range [][]string{s.args("import-layer", "-i", "base", "-f", file), s.args("diff", "-u", "base")} {
		got, err := measure(&contestant{command: args})
		if err != nil {
			return err
		}
		p.y[i] = got.wall.Seconds()
		fmt.Printf("  %-8s %8d files of %11d bytes: %9.1f ms, %7.3f CPU s, %6.1f MiB\n",
			[]string{"apply", "export"}[i], files, size, got.wall.Seconds()*1e3, got.cpu.Seconds(), float64(got.rss)/(1<<20))
	}
	*to = append(*to, p)
	return nil
}

// slope is that of the least-squares line.
func slope(ps []point, nth int) float64 {
	var n, sx, sy, sxx, sxy float64
	for _, p := range ps {
		n, sx, sy, sxx, sxy = n+1, sx+p.x, sy+p.y[nth], sxx+p.x*p.x, sxy+p.x*p.y[nth]
	}
	return (n*sxy - sx*sy) / (n*sxx - sx*sx)
}
