package holders

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"testing"
)

func TestOf(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if got, err := Of(dir); err != nil || len(got) != 0 {
		t.Fatalf("an unused directory: %v, %v", got, err)
	}
	for script, want := range map[string]string{
		`cd "$1" && echo && read x`:             "sh (process %d) has its working directory " + dir,
		`exec 9>"$1/f" && echo && read x`:       "sh (process %d) has open " + dir + "/f",
		`cd "$1" && exec 9>g && echo && read x`: "sh (process %d) has its working directory " + dir,
	} {
		cmd := exec.Command("sh", "-c", script, "sh", dir)
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
		if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
			t.Fatal(err)
		}
		got, err := Of(dir)
		if err != nil || len(got) != 1 || got[0].String() != fmt.Sprintf(want, cmd.Process.Pid) {
			t.Errorf("%s: got %v, %v; want "+want, script, got, err, cmd.Process.Pid)
		}
		if err := in.Close(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // read fails at the end of its input
	}
	if got, err := Of(dir + "x"); err != nil || len(got) != 0 {
		t.Errorf("a directory whose name is longer: %v, %v", got, err)
	}
	if _, err := os.Stat(dir); err != nil {
		t.Error(err)
	}
}
