package main

import (
	"errors"
	"io"
	"os"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/creack/pty"

	"github.com/notebookd/notebookd/cmd/notebookctl/internal/table"
)

// screen is a terminal that somebody looks at.
type screen struct {
	keyboard *os.File
	shown    *buffer
	code     chan int // gets the exit code, once
}

// onScreen runs the program on a terminal.
func (c *caller) onScreen(t *testing.T, columns uint16, args ...string) *screen {
	t.Helper()
	ours, theirs, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	if err := pty.Setsize(theirs, &pty.Winsize{Rows: 50, Cols: columns}); err != nil {
		t.Fatal(err)
	}
	s := &screen{keyboard: ours, shown: &buffer{}, code: make(chan int, 1)}
	read := make(chan struct{})
	go func() { // ends when the other side is closed
		defer close(read)
		_, err := io.Copy(s.shown, ours)
		if err != nil && !errors.Is(err, syscall.EIO) && !errors.Is(err, os.ErrClosed) {
			t.Errorf("reading the terminal: %v", err)
		}
	}()
	go func() {
		code := run(t.Context(), args, func(name string) string { return c.env[name] }, theirs, theirs, theirs)
		_ = theirs.Close()
		<-read
		s.code <- code
	}()
	t.Cleanup(func() { _ = ours.Close() })
	return s
}

// wait returns what was shown, and the exit code.
func (s *screen) wait() (string, int) {
	code := <-s.code
	return strings.ReplaceAll(s.shown.String(), "\r\n", "\n"), code
}

var escapes = regexp.MustCompile("\x1b\\[[0-9;]*m")

// terminals: on a terminal tables fit its width, and there are colours unless they
// are not wanted.
func terminals(t *testing.T, s *server) {
	t.Helper()
	for _, lang := range []string{"en_US.UTF-8", "zh_CN.UTF-8"} {
		c := s.caller(t).with("LANG", lang)
		columns := map[uint16]int{}
		for _, width := range []uint16{40, 80, 120, 200} {
			for _, args := range [][]string{{"list"}, {"list", "-o", "wide"}, {"clouds"}, {"clouds", "-o", "wide"}, {"get", firstName}, {"clouds", "scnet"}, {"list", "--help"}} {
				text, code := c.onScreen(t, width, args...).wait()
				if code != 0 || len(text) < 100 {
					t.Fatalf("%q ended with %d: %s", args, code, text)
				}
				plain := escapes.ReplaceAllString(text, "")
				for _, line := range strings.Split(plain, "\n") {
					if n := table.Width(line); n > int(width) && args[len(args)-1] != "--help" {
						t.Errorf("%s: %q in %d columns is %d wide: %s", lang, args, width, n, line)
					}
				}
				if args[0] == "list" && len(args) == 1 {
					columns[width] = len(strings.Fields(strings.Split(plain, "\n")[0]))
					if !strings.Contains(plain, "nb-eiguqic") {
						t.Errorf("no id in %d columns:\n%s", width, plain)
					}
				}
				if text == plain && args[len(args)-1] != "--help" {
					t.Errorf("%q has no colours: %s", args, text)
				}
			}
		}
		if columns[40] >= columns[80] || columns[80] > columns[120] || columns[200] != 8 {
			t.Errorf("%s: numbers of columns by width: %v", lang, columns)
		}
		if text, _ := c.with("NO_COLOR", "1").onScreen(t, 120, "list").wait(); strings.Contains(text, "\x1b") {
			t.Errorf("colours in spite of NO_COLOR: %q", text)
		}
	}
	// Elsewhere a table is as wide as it has to be, and plain.
	r := s.caller(t).want(t, 0, "list")
	if refuse(t, r.stdout, "\x1b", "…"); !strings.Contains(r.stdout, tensorflow) {
		t.Errorf("%s", r.stdout)
	}
}
