package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/tests/internal/timing"
)

// result are the medians of a step, by side.
type result struct {
	Line, Step string
	Rounds     int
	Memory     bool
	Part       bool // of another step's time
	By         map[string]figure
}

// figure is milliseconds (or MiB) and the server's CPU seconds.
type figure struct{ Value, CPU float64 }

// measure runs the rounds of a line and prints it.
func (b *bench) measure(l line, sides []side) error {
	for _, p := range []string{"fio", "git", "go", "dpkg"} {
		if _, err := exec.LookPath(p); err != nil && l.uses(p) {
			fmt.Printf("\n%s: left out, there is no %s here\n", l.name, p)
			return nil
		}
	}
	if err := b.provide(&l); err != nil {
		return err
	}
	if l.mounting {
		if err := adopt(); err != nil {
			return err
		}
	}
	got, err := b.rounded(&l, l.among(sides))
	if err != nil {
		return err
	}
	b.results = slices.DeleteFunc(b.results, func(r result) bool { return r.Line == l.name })
	for i, st := range l.steps {
		r := result{Line: l.name, Step: st.name, Rounds: b.rounds, Memory: st.memory, Part: st.part, By: map[string]figure{}}
		for name, rounds := range got {
			var v, cpu []float64
			if l.mounting && i >= int(backBegin) && rounds[0][i].Value == 0 {
				continue // it has no background
			}
			for _, figures := range rounds {
				v, cpu = append(v, figures[i].Value), append(cpu, figures[i].CPU)
			}
			r.By[name] = figure{timing.Median(v), timing.Median(cpu)}
		}
		b.results = append(b.results, r)
		b.print(os.Stdout, &r, sides)
	}
	return nil
}

// among returns the sides that the line is for.
func (l *line) among(sides []side) []side {
	var in []side
	for _, s := range sides {
		if l.copiesUp && s.name == floor || (l.sizable || l.mounting) && s.name == native {
			continue
		}
		in = append(in, s)
	}
	return in
}

// rounded runs the rounds; what comes out is figures by side, round and step.
func (b *bench) rounded(l *line, in []side) (map[string][][]figure, error) {
	got := map[string][][]figure{}
	want := ""
	for round := range b.rounds {
		for i := range in {
			if b.stopped.Load() {
				return nil, errors.New("interrupted")
			}
			s := &in[(i+round)%len(in)]
			figures, hash, err := b.once(s, l)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", s.name, err)
			}
			if want == "" {
				want = hash
			}
			if hash != want {
				return nil, fmt.Errorf("%s made another tree than the others: %s, not %s", s.name, hash, want)
			}
			got[s.name] = append(got[s.name], figures)
		}
	}
	return got, nil
}

// uses tells whether a step runs the program.
func (l *line) uses(program string) bool {
	for _, s := range l.steps {
		if len(s.args) > 0 && s.args[0] == program || len(s.args) > 2 && bytes.Contains([]byte(s.args[2]), []byte(program+" ")) {
			return true
		}
	}
	return false
}

// provide makes the tars and packages that a line wants.
func (b *bench) provide(l *line) error {
	var err error
	switch l.name {
	case "untar", "rm-new":
		_, err = b.sources("S")
	case "untar-L":
		_, err = b.sources("L")
	case "dpkg":
		_, err = b.packages()
	}
	return err
}

func (b *bench) debsDir() string {
	if b.debs != "" {
		return b.debs
	}
	return filepath.Join(b.dir, "debs")
}

// once is one round of one side.
func (b *bench) once(s *side, l *line) (figures []figure, hash string, err error) {
	if l.mounting {
		figures, err := b.mounting(s, l)
		return figures, "", err
	}
	m, err := b.mount(s, l)
	if m != nil {
		defer func() { err = errors.Join(err, b.putAway(m, l)) }()
	}
	if err != nil {
		return nil, "", err
	}
	if l.prepare != nil {
		if _, err := b.do(m.dir, l.prepare); err != nil {
			return nil, "", err
		}
	}
	unix.Sync()
	for i := range l.steps {
		f, err := b.step(m, &l.steps[i])
		if err != nil {
			return nil, "", fmt.Errorf("%s: %w", l.steps[i].name, err)
		}
		figures = append(figures, f)
	}
	if l.compared != "" {
		hash, err = b.hash(filepath.Join(m.dir, l.compared), l.apart)
	}
	return figures, hash, err
}

func (b *bench) step(m *mounted, s *step) (f figure, err error) {
	if s.cold {
		if err := dropCaches(); err != nil {
			return f, err
		}
	}
	if s.beside != nil {
		end, err := b.besides(m, s.beside)
		if err != nil {
			return f, err
		}
		defer func() { err = errors.Join(err, end()) }()
	}
	cpu := m.cpu()
	start := time.Now()
	out, err := b.do(m.dir, s.args)
	took := time.Since(start).Seconds()
	if err != nil {
		return f, err
	}
	if s.time != nil {
		if took, err = s.time(out); err != nil {
			return f, err
		}
	}
	if s.after != nil {
		if err := s.after(); err != nil {
			return f, err
		}
	}
	f = figure{took * 1e3, m.cpu() - cpu}
	if s.memory {
		f.Value = m.resident()
	}
	return f, nil
}

// besides starts a command; end waits for it.
func (b *bench) besides(m *mounted, args []string) (end func() error, err error) {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir, cmd.SysProcAttr = m.dir, b.who()
	var text bytes.Buffer
	cmd.Stderr = &text
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	time.Sleep(50 * time.Millisecond)
	return func() error {
		if err := cmd.Wait(); err != nil {
			return fmt.Errorf("%q: %w: %s", args, err, text.String())
		}
		return nil
	}, nil
}

// do runs a command in dir and returns what it printed, if that is wanted.
func (b *bench) do(dir string, args []string) ([]byte, error) {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir, cmd.SysProcAttr = dir, b.who()
	var text bytes.Buffer
	cmd.Stderr = &text
	var out bytes.Buffer
	if args[0] == "fio" || args[0] == b.self && args[2] == "hash" {
		cmd.Stdout = &out
	}
	if err := cmd.Run(); err != nil {
		said := text.String()
		return nil, fmt.Errorf("%q: %w: %s", args, err, said[:min(len(said), 500)])
	}
	return out.Bytes(), nil
}
