package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// work carries out a step in the current directory.
func work(name string, args []string) error {
	number := func(i int) int {
		if i >= len(args) {
			return 0
		}
		n, err := strconv.Atoi(args[i])
		if err != nil {
			return 0
		}
		return n
	}
	switch name {
	case "missing":
		return missing(1000, 100)
	case "opens":
		return opens(args[0], number(1))
	case "make":
		return files(".", 0, number(0), 16)
	case "renames":
		return renames(number(0), number(1))
	case "rewrite":
		return files(args[0], 0, number(1), 4096)
	case "mixed":
		return mixed(number(0))
	case "around":
		return around()
	case "hash":
		return printHash(args[0], args[1:])
	}
	return fmt.Errorf("there is no work called %q", name)
}

func missing(names, times int) error {
	for range times {
		for i := range names {
			var st unix.Stat_t
			if err := unix.Stat("net/missing"+strconv.Itoa(i), &st); !errors.Is(err, unix.ENOENT) {
				return fmt.Errorf("a missing name: %w", err)
			}
		}
	}
	return nil
}

func opens(path string, times int) error {
	buf := make([]byte, 4096)
	for range times {
		fd, err := unix.Open(path, unix.O_RDONLY, 0)
		if err != nil {
			return err
		}
		_, err = unix.Read(fd, buf)
		if err = errors.Join(err, unix.Close(fd)); err != nil {
			return err
		}
	}
	return nil
}

// renames moves each file to a second name and back, in turn.
func renames(names, times int) error {
	for i := range times {
		from, to := "f"+strconv.Itoa(i%names), "g"+strconv.Itoa(i%names)
		if i/names%2 == 1 {
			from, to = to, from
		}
		if err := os.Rename(from, to); err != nil {
			return err
		}
	}
	return nil
}

// mixed lets workers make, write, read, look at, move and remove files, each in
// a directory of its own.
func mixed(workers int) error {
	var wg sync.WaitGroup
	errs := make([]error, workers)
	for w := range workers {
		wg.Go(func() {
			dir := fmt.Sprintf("w%d", w)
			errs[w] = os.Mkdir(dir, 0o755)
			for i := 0; i < 500 && errs[w] == nil; i++ {
				errs[w] = mixedOnce(fmt.Sprintf("%s/f%d", dir, i), i)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

func mixedOnce(name string, i int) error {
	if err := os.WriteFile(name, pattern(3000+i), 0o644); err != nil {
		return err
	}
	if _, err := os.ReadFile(name); err != nil {
		return err
	}
	if _, err := os.ReadFile("net/net.go"); err != nil {
		return err
	}
	if err := os.Rename(name, name+"x"); err != nil {
		return err
	}
	if _, err := os.Lstat(name + "x"); err != nil {
		return err
	}
	if i%2 == 0 {
		return nil
	}
	return os.Remove(name + "x")
}

// around looks names up that nobody has looked up before, lists and reads, as
// the server must do and not the kernel's caches.
func around() error {
	for i := range 2000 {
		var st unix.Stat_t
		if err := unix.Stat(fmt.Sprintf("none-%d-%d", os.Getpid(), i), &st); !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("a missing name: %w", err)
		}
		if i%10 != 0 {
			continue
		}
		if _, err := os.ReadDir("."); err != nil {
			return err
		}
		if err := readSome("1g", int64(i)<<16); err != nil {
			return err
		}
	}
	return nil
}

func readSome(path string, off int64) (err error) {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	_, err = f.ReadAt(make([]byte, 4096), off)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return err
}

// settled gives a server the time to give memory back that the kernel's
// FORGETs have freed.
func settled() error {
	for range 3 {
		if err := dropCaches(); err != nil {
			return err
		}
		time.Sleep(2 * time.Second)
	}
	return nil
}
