package detach

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// The test binary plays both processes: PLAY says which, and what happens.
func TestMain(m *testing.M) {
	switch play := os.Getenv("PLAY"); play {
	case "":
		os.Exit(m.Run())
	case "announces":
		os.Exit(announces())
	default:
		os.Exit(act(play))
	}
}

func act(play string) int {
	p, err := Here()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 9
	}
	if p == nil {
		ctx := context.Background()
		if play == "slow" {
			var cancel context.CancelFunc
			ctx, cancel = signal.NotifyContext(ctx, syscall.SIGUSR1) // sent by the second process
			defer cancel()
		}
		status, err := Start(ctx, os.Args[1:], os.Stderr)
		if err != nil {
			fmt.Fprintln(os.Stderr, "first:", err)
		}
		return status
	}
	switch play {
	case "fails":
		fmt.Fprintln(os.Stderr, "the reason")
		return 7
	case "dies":
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	case "slow":
		c := make(chan os.Signal, 1)
		signal.Notify(c, syscall.SIGTERM)
		_ = syscall.Kill(os.Getppid(), syscall.SIGUSR1)
		<-c
		fmt.Fprintln(os.Stderr, "told to stop")
		return 3
	}
	if err := p.Ready(true); err != nil {
		return 8
	}
	fmt.Fprintln(os.Stderr, "nobody hears this")
	// The second process lives until its named pipe is opened and closed.
	f, err := os.Open(os.Getenv("UNTIL"))
	if err != nil {
		return 6
	}
	_, _ = io.Copy(io.Discard, f)
	return 0
}

func play(t *testing.T, what, until string) (string, int) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=none")
	cmd.Env = append(os.Environ(), "PLAY="+what, "UNTIL="+until)
	var out bytes.Buffer
	cmd.Stderr = &out
	// With a pipe as standard error, Run returns only when every holder of it
	// has let go.
	err := cmd.Run()
	if err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return out.String(), cmd.ProcessState.ExitCode()
}

func TestReadyLetsTheFirstProcessEnd(t *testing.T) {
	t.Parallel()
	until := t.TempDir() + "/until"
	if err := syscall.Mkfifo(until, 0o600); err != nil {
		t.Fatal(err)
	}
	out, status := play(t, "works", until)
	if status != 0 || out != "" {
		t.Errorf("status %d, stderr %q", status, out)
	}
	// The second process is there: it opens the pipe for reading.
	f, err := os.OpenFile(until, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestFailureIsTheFirstProcesss(t *testing.T) {
	t.Parallel()
	if out, status := play(t, "fails", ""); status != 7 || out != "the reason\n" {
		t.Errorf("status %d, stderr %q", status, out)
	}
	if out, status := play(t, "dies", ""); status != 1 || !strings.Contains(out, "signal 9") {
		t.Errorf("status %d, stderr %q", status, out)
	}
}

func TestInterruptedWhileWaiting(t *testing.T) {
	t.Parallel()
	if out, status := play(t, "slow", ""); status != 3 || out != "told to stop\n" {
		t.Errorf("status %d, stderr %q", status, out)
	}
}

// announces tells its parent that it is there, and ends with its input.
func announces() int {
	if err := Announce(os.Getenv("UNTIL")); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Println("announced")
	_, _ = io.Copy(io.Discard, os.Stdin)
	return 0
}

// watched waits for the process that announced name.
func watched(ctx context.Context, t *testing.T, name string, most time.Duration) (bool, error) {
	t.Helper()
	w := Watch(name)
	ended, err := w.Wait(ctx, most)
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	return ended, err
}

func TestWatchWaitsForTheEnd(t *testing.T) {
	t.Parallel()
	name := "plyfs-test" + t.TempDir()
	if _, err := watched(context.Background(), t, name, time.Hour); err != nil {
		t.Errorf("nobody announced that name: %v", err)
	}
	cmd, end := announcer(t, name)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	for range 40 {
		if _, err := watched(ctx, t, name, time.Hour); !errors.Is(err, context.Canceled) {
			t.Errorf("interrupted: %v", err)
		}
	}
	if ended, err := watched(context.Background(), t, name, time.Millisecond); err != nil || ended {
		t.Errorf("the time is over: %t, %v", ended, err)
	}
	w := Watch(name)
	defer func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	}()
	if pid, err := w.PID(); err != nil || pid != cmd.Process.Pid {
		t.Errorf("it is process %d (%v), want %d", pid, err, cmd.Process.Pid)
	}
	end()
	if ended, err := w.Wait(context.Background(), time.Hour); err != nil || !ended {
		t.Errorf("it has ended: %t, %v", ended, err)
	}
}

// A mount's number is given to a new mount while the old one's server is still
// ending: who asks is told of the new one's.
func TestWatchFindsTheLast(t *testing.T) {
	t.Parallel()
	name := "plyfs-test" + t.TempDir()
	before, endBefore := announcer(t, name)
	for range servers + 2 { // one after the other, beside the one before
		now, end := announcer(t, name)
		w := Watch(name)
		if pid, err := w.PID(); err != nil || pid != now.Process.Pid {
			t.Errorf("it is process %d (%v), want %d, not %d", pid, err, now.Process.Pid, before.Process.Pid)
		}
		if ended, err := w.Wait(context.Background(), time.Millisecond); err != nil || ended {
			t.Errorf("it has not ended: %t, %v", ended, err)
		}
		end()
		if ended, err := w.Wait(context.Background(), time.Hour); err != nil || !ended {
			t.Errorf("it has ended: %t, %v", ended, err)
		}
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	}
	endBefore()
	if ended, err := watched(context.Background(), t, name, time.Hour); err != nil || !ended {
		t.Errorf("nobody is there: %t, %v", ended, err)
	}
}

// More than there is room for are told so.
func TestAnnounceIsBounded(t *testing.T) {
	t.Parallel()
	name := "plyfs-test" + t.TempDir()
	for range servers {
		_, end := announcer(t, name)
		defer end()
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "PLAY=announces", "UNTIL="+name, "GORACE=atexit_sleep_ms=0")
	if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "16 processes") {
		t.Errorf("one too many: %q, %v", out, err)
	}
}

// announcer starts a process that announces name, and returns what ends it.
func announcer(t *testing.T, name string) (cmd *exec.Cmd, end func()) {
	t.Helper()
	cmd = exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "PLAY=announces", "UNTIL="+name, "GORACE=atexit_sleep_ms=0")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	end = sync.OnceFunc(func() {
		if err := in.Close(); err != nil {
			t.Error(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(end)
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	return cmd, end
}
