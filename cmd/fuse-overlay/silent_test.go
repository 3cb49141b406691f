package main

import (
	"bytes"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// silentFS is a layer that, once it is asked to, answers nothing about its root, for as long as
// somebody waits.
type silentFS struct {
	fuse.RawFileSystem
	silent atomic.Bool
	asked  chan struct{}
}

func (s *silentFS) GetAttr(cancel <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	if s.silent.Load() {
		select {
		case s.asked <- struct{}{}:
		default:
		}
		<-cancel
		return fuse.EINTR
	}
	out.Attr = fuse.Attr{Ino: in.NodeId, Mode: syscall.S_IFDIR | 0o755, Nlink: 2}
	return fuse.OK
}

// TestToldBesideSilence: a signal ends the mount that is being made also while a layer does not
// answer.
func TestToldBesideSilence(t *testing.T) {
	eachFront(t, func(t *testing.T, program string) {
		for _, how := range []string{"background", "foreground"} {
			dir, options := layers(t)
			s := &silentFS{RawFileSystem: fuse.NewDefaultRawFileSystem(), asked: make(chan struct{}, 1)}
			lower := filepath.Join(dir, "lower")
			srv, err := fuse.NewServer(s, lower, &fuse.MountOptions{DirectMountStrict: true, DisableSplice: true, Name: "silent"})
			if err != nil {
				t.Fatal(err)
			}
			served := make(chan struct{})
			go func() { srv.Serve(); close(served) }()
			if err := srv.WaitMount(); err != nil {
				t.Fatal(err)
			}
			s.silent.Store(true)
			cmd := exec.Command(program, strings.Fields(map[string]string{"foreground": "-f "}[how]+"-o "+options+" "+dir+"/m")...)
			var says bytes.Buffer
			cmd.Stderr = &says
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			<-s.asked
			if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			_ = cmd.Wait()                                          // its state says more
			if cmd.ProcessState.Success() || mounted(t, dir+"/m") { // by itself, or by the signal where that came first
				t.Errorf("%s: %v, %q", how, cmd.ProcessState, &says)
			}
			s.silent.Store(false)
			if err := srv.Unmount(); err != nil {
				t.Fatal(err)
			}
			<-served
		}
	})
}
