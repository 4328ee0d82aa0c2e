//go:build docs

package docs_test

import (
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// ellipsis stands for anything within a line, and by itself for any number of lines.
const ellipsis = "…"

// block is a console block of a page, or a file that the reader is to write. What is
// said of a block stands in a comment on the line before it, which readers do not see:
//
//	<!-- not run: WHY -->  it is only shown
//	<!-- stays: NAME -->   its last command goes on, until a block with the same name or
//	                       the page ends; it has printed what is shown by then
//	<!-- file: NAME -->    the block, of any language, is written to this file
//
// A page with <!-- no server --> starts its server itself.
type block struct {
	line     int // of its first line
	shown    []string
	notRun   string // why, if it is not
	stays    string // the name of its last command
	file     string
	commands []command
}

// command is a command line of a page, and what the page says becomes of it.
type command struct {
	line        int
	text        string
	output      []string // none: whatever it prints
	code        int      // -1: not told
	interrupted bool     // the page ends it with ctrl-C
	stays       string   // its name, if it goes on
}

var (
	comment  = regexp.MustCompile(`^<!-- (not run|stays|file):(.*)-->$`)
	exitCode = regexp.MustCompile(`^# exit code (\d+)$`)
)

// parse finds the console blocks of a page. Its errors begin with the number of a line.
func parse(page string) ([]block, error) {
	var (
		blocks []block
		fence  string // of the block that a line is in
		inside *block // that block, if it is a console block
		before string // the line before
	)
	for i, line := range strings.Split(page, "\n") {
		switch n := i + 1; {
		case fence == "" && strings.HasPrefix(line, "```"):
			rest := strings.TrimLeft(line, "`")
			fence = line[:len(line)-len(rest)]
			b := &block{line: n + 1}
			if said := comment.FindStringSubmatch(before); said != nil {
				text := strings.TrimSpace(said[2])
				*map[string]*string{"not run": &b.notRun, "stays": &b.stays, "file": &b.file}[said[1]] = text
				if text == "" || (said[1] == "file") == (rest == "console") || b.file != "" && !filepath.IsLocal(b.file) {
					return nil, fmt.Errorf("%d: %s cannot be said here", n, before)
				}
			}
			if rest == "console" || b.file != "" {
				inside = b
			}
		case fence == "":
		case line == fence:
			if inside != nil {
				if inside.file == "" {
					if err := inside.split(); err != nil {
						return nil, err
					}
				}
				blocks = append(blocks, *inside)
			}
			fence, inside = "", nil
		case inside != nil:
			inside.shown = append(inside.shown, line)
		}
		before = line
	}
	if fence != "" {
		return nil, errors.New("the last block has no end")
	}
	return blocks, nil
}

// split splits what a block shows into its commands.
func (b *block) split() error {
	for i, line := range b.shown {
		n := b.line + i
		if text, ok := strings.CutPrefix(line, "$ "); ok {
			b.commands = append(b.commands, command{line: n, text: text, code: -1})
			continue
		}
		if len(b.commands) == 0 {
			return fmt.Errorf("%d: output of no command", n)
		}
		c := &b.commands[len(b.commands)-1]
		if c.code >= 0 || c.interrupted {
			return fmt.Errorf("%d: output after the end of its command", n)
		}
		if more, ok := strings.CutPrefix(line, "> "); ok && len(c.output) == 0 {
			c.text += "\n" + more
		} else if said := exitCode.FindStringSubmatch(line); said != nil {
			code, err := strconv.Atoi(said[1])
			if err != nil {
				return fmt.Errorf("%d: %w", n, err)
			}
			c.code = code
		} else if line == "^C" {
			c.interrupted = true
		} else {
			c.output = append(c.output, line)
		}
	}
	if len(b.commands) == 0 {
		return fmt.Errorf("%d: a console block without a command", b.line)
	}
	if last := &b.commands[len(b.commands)-1]; b.stays != "" {
		if last.code >= 0 || last.interrupted || len(last.output) == 0 {
			return fmt.Errorf("%d: what stays has to print something, and does not end", b.line)
		}
		last.stays = b.stays
	}
	return nil
}

// lines are the lines of an output. Nobody sees spaces at the end of a line, nor empty lines at the end.
func lines(output string) []string {
	var all []string
	for _, l := range strings.Split(strings.TrimRight(output, " \t\r\n"), "\n") {
		all = append(all, strings.TrimRight(l, " \t\r"))
	}
	return all
}

// passing is a line on a phase that an image change goes through: whoever follows a
// change is told the phase of now, and misses those that are short.
var passing = regexp.MustCompile(`^(?:…|\d\d:\d\d:\d\d)  (?:accepted|stopping the old notebook|creating the new notebook|verifying|renaming|releasing the old notebook|` +
	`已受理|正在停止旧实例|正在创建新实例|正在核对|正在重命名|正在释放旧实例)$`)

// lasting are the lines that come each time.
func lasting(all []string) []string {
	return slices.DeleteFunc(slices.Clone(all), passing.MatchString)
}

// match compares what is shown with what was printed, and says which line of what
// is shown is the first that does not come.
func match(shown, printed []string) error {
	// at[j] says that what is shown so far can be the first j lines printed.
	at := make([]bool, len(printed)+1)
	at[0] = true
	for i, want := range shown {
		next := make([]bool, len(printed)+1)
		possible := false
		for j := range next {
			if strings.TrimSpace(want) == ellipsis {
				next[j] = at[j] || j > 0 && next[j-1]
			} else {
				next[j] = j > 0 && at[j-1] && matchLine(want, printed[j-1])
			}
			possible = possible || next[j]
		}
		if !possible {
			return fmt.Errorf("line %d of what is shown was not printed there: %q", i+1, want)
		}
		at = next
	}
	if !at[len(printed)] {
		return errors.New("more was printed than is shown")
	}
	return nil
}

// jsonSpace is what a message in JSON may have between its parts, as each build of the
// server likes.
var jsonSpace = regexp.MustCompile(`(["}\]\de],|":) (["\[{\d-]|true|false|null)`)

// compact takes the spaces out of a message in JSON that is on one line.
func compact(line string) string {
	if strings.Contains(line, `{"`) {
		// Twice, since a part of one letter ends one space and begins the next.
		line = jsonSpace.ReplaceAllString(jsonSpace.ReplaceAllString(line, "$1$2"), "$1$2")
	}
	return line
}

// matchLine compares a line, in which an ellipsis is anything, also nothing.
func matchLine(want, got string) bool {
	want, got = compact(want), compact(got)
	parts := strings.Split(strings.TrimRight(want, " \t"), ellipsis)
	if len(parts) == 1 {
		return parts[0] == got
	}
	last := len(parts) - 1
	if !strings.HasPrefix(got, parts[0]) {
		return false
	}
	got = got[len(parts[0]):]
	for _, p := range parts[1:last] {
		i := strings.Index(got, p)
		if i < 0 {
			return false
		}
		got = got[i+len(p):]
	}
	return strings.HasSuffix(got, parts[last])
}

func TestMatch(t *testing.T) {
	for _, c := range []struct {
		name, shown, printed string
		want                 bool
	}{
		{"the same", "a\nb", "a\nb", true},
		{"another line", "a\nb", "a\nc", false},
		{"a line too few", "a\nb", "a", false},
		{"a line too many", "a", "a\nb", false},
		{"another order", "a\nb", "b\na", false},
		{"an empty line within", "a\n\nb", "a\nb", false},
		{"spaces at the end", "a  ", "a \n\n", true},
		{"spaces within", "a  b", "a b", false},
		{"anything within a line", "a … c", "a b b c", true},
		{"nothing within a line", "a…c", "ac", true},
		{"not more than a line", "a…c", "a\nc", false},
		{"another beginning", "a…c", "bc", false},
		{"another end", "a…c", "ab", false},
		{"beginning and end do not overlap", "ab…ba", "aba", false},
		{"twice in a line", "a…b…c", "a1b2c", true},
		{"twice, in another order", "a…c…b…d", "a b c d", false},
		{"twice, and the last one is at the end", "…b…b", "ab", false},
		{"no pattern", "a.*c", "abc", false},
		{"JSON with spaces", `{"a":1,"b":"c: d","e":[true,{"f":2}],…"h":3}`, `{"a":1, "b":"c: d", "e":[true, {"f":2}], "g":"", "h":3}`, true},
		{"JSON without", `{"a": 1, "b": "c"}`, `{"a":1,"b":"c"}`, true},
		{"texts in JSON", `{"a":"b, c"}`, `{"a":"b,c"}`, false},
		{"any number of lines", "a\n…\nd", "a\nb\nc\nd", true},
		{"no lines", "a\n…\nb", "a\nb", true},
		{"lines at the beginning", "…\nc", "a\nb\nc", true},
		{"lines at the end", "a\n…", "a\nb\nc", true},
		{"lines, but not the one after them", "a\n…\nd", "a\nb\nc", false},
		{"lines, and more after the last", "…\nb", "a\nb\nc", false},
		{"the first that fits is not the right one", "…\na\nb", "a\na\nb", true},
		{"twice any number of lines", "…\nb\n…\nd", "a\nb\nc\nd", true},
		{"nothing was printed", "a", "", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := match(strings.Split(c.shown, "\n"), lines(c.printed)); (err == nil) != c.want {
				t.Errorf("match(%q, %q) = %v, want a match: %v", c.shown, c.printed, err, c.want)
			}
		})
	}
}

func TestLasting(t *testing.T) {
	shown := []string{"Change: …", "…  accepted", "…  succeeded"}
	for printed, want := range map[string]bool{
		"Change: a|12:00:00  accepted|12:00:01  succeeded":                                       true,
		"Change: a|12:00:00  verifying|12:00:00  releasing the old notebook|12:00:01  succeeded": true,
		"Change: a|12:00:01  succeeded":                                                          true,
		"Change: a|12:00:00  accepted|12:00:01  failed":                                          false,
		"Change: a|12:00:00  accepted by nobody|12:00:01  succeeded":                             false,
	} {
		if err := match(lasting(shown), lasting(strings.Split(printed, "|"))); (err == nil) != want {
			t.Errorf("%s: %v", printed, err)
		}
	}
}

func TestParse(t *testing.T) {
	page := "text\n```sh\n$ not a console block\n```\n```console\n$ a \\\n>   b\nout\n> out\n$ c\n$ d\n# exit code 3\n$ e\nx\n^C\n```\n" +
		"<!-- not run: a reason -->\n```console\n$ f\n```\n<!-- stays: it -->\n```console\n$ g\nready\n```\n<!-- file: a/b.yaml -->\n```yaml\nx: 1\n\n```\n"
	blocks, err := parse(page)
	if err != nil {
		t.Fatal(err)
	}
	if len(blocks) != 4 || len(blocks[0].commands) != 4 || blocks[0].notRun != "" || blocks[1].notRun != "a reason" ||
		blocks[2].commands[0].stays != "it" || blocks[3].file != "a/b.yaml" || strings.Join(blocks[3].shown, "|") != "x: 1|" {
		t.Fatalf("%+v", blocks)
	}
	for i, want := range []command{
		{line: 6, text: "a \\\n  b", output: []string{"out", "> out"}, code: -1},
		{line: 10, text: "c", code: -1},
		{line: 11, text: "d", code: 3},
		{line: 13, text: "e", output: []string{"x"}, code: -1, interrupted: true},
	} {
		if got := blocks[0].commands[i]; fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", want) {
			t.Errorf("command %d: %+v, want %+v", i, got, want)
		}
	}
	for name, page := range map[string]string{
		"output of no command": "```console\nout\n```",
		"no command":           "```console\n```",
		"no end":               "```console\n$ a",
		"no reason":            "<!-- not run: -->\n```console\n$ a\n```",
		"a file of commands":   "<!-- file: a -->\n```console\n$ a\n```",
		"a file elsewhere":     "<!-- file: ../a -->\n```yaml\na: 1\n```",
		"what stays ends":      "<!-- stays: a -->\n```console\n$ a\nb\n^C\n```",
		"what stays is silent": "<!-- stays: a -->\n```console\n$ a\n```",
		"output after its end": "```console\n$ a\n# exit code 1\nout\n```",
	} {
		if blocks, err := parse(page); err == nil {
			t.Errorf("%s: no error, and %+v", name, blocks)
		}
	}
}
