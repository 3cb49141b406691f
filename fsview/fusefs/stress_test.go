package fusefs

import (
	"strings"
	"sync"
	"testing"

	"github.com/plyfs/plyfs/internal/fusetest"
	"github.com/plyfs/plyfs/internal/hosttree"
)

// Many programs at once, each in a corner of its own and all in a common one,
// while the kernel is made to forget: nobody fails, and the mount and the
// directory below show the same in the end.
func TestManyAtOnce(t *testing.T) {
	t.Parallel()
	host := t.TempDir()
	w, err := hosttree.Open("stress", host, hosttree.Options{Owners: true})
	if err != nil {
		t.Fatal(err)
	}
	log, text := logged()
	mount, s := mounted(t, w.Root(), Options{Log: log})
	t.Cleanup(func() {
		for _, l := range strings.Split(text(), "\n") {
			if t.Failed() && strings.Contains(l, "ESTALE") {
				t.Log(l)
			}
		}
	})
	var wg sync.WaitGroup
	for _, id := range []string{"1", "2", "3", "4"} {
		wg.Add(1)
		go func() {
			defer wg.Done()
			r := fusetest.Script(t, `set -e; cd $1; mkdir -p common own$2; cd own$2
				for i in $(seq 40); do
					mkdir d$i; echo $i > d$i/f; ln d$i/f l$i; mv d$i/f d$i/g; cat l$i d$i/g > ../common/$2-$i
					mv ../common/$2-$i ../common/moved-$2; cp -a d$i copy; rm -r copy
					ls -lR . > /dev/null; rm l$i; ls ../common > /dev/null
					exec 3< d$i/g; rm -r d$i; read x <&3; test $x = $i; exec 3<&-
				done; echo done > result`, mount, id)
			if r.Status != 0 {
				t.Errorf("%s: %+v", id, r)
			}
		}()
	}
	wg.Add(1)
	go func() {
		defer wg.Done()
		fusetest.Must(t, `for i in $(seq 20); do echo 2 > /proc/sys/vm/drop_caches; find $1 > /dev/null 2>&1 || :; done`, mount)
	}()
	wg.Wait()
	list := `cd $1; find . -printf '%p %y %m %s\n' | sort`
	if got, want := fusetest.Must(t, list, mount), fusetest.Must(t, list, host); got != want {
		t.Errorf("the mount shows\n%s\nthe directory\n%s", got, want)
	}
	if h := s.Stats().Handles; h > 50 {
		t.Errorf("%d handles are open", h)
	}
}
