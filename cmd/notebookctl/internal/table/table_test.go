package table_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/notebookd/notebookd/cmd/notebookctl/internal/table"
)

func sample() *table.Table {
	t := &table.Table{Columns: []table.Column{{Title: "ID"}, {Title: "名称", Min: 6, Drop: 1}, {Title: "IMAGE", Min: 8, Drop: 2, KeepEnd: true}, {Title: "EMPTY", Drop: 1}}}
	t.Add(table.Text("nb-1"), table.Text("容器实例-1"), table.Cell{Text: "registry.example/a/b:1", Style: table.Green}, table.Text(""))
	t.Add(table.Text("nb-22"), table.Text("x"), table.Text("c:2"), table.Text(""))
	return t
}

func write(t *testing.T, tab *table.Table, width int, colours bool) string {
	t.Helper()
	var out strings.Builder
	if err := tab.Write(&out, width, colours); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestTable(t *testing.T) {
	for width, want := range map[int]string{
		0: "ID     名称        IMAGE                   EMPTY\n" +
			"nb-1   容器实例-1  registry.example/a/b:1  -\n" +
			"nb-22  x           c:2                     -\n",
		42: "ID     名称        IMAGE\n" + // what says nothing goes first
			"nb-1   容器实例-1  registry.example/a/b:1\n" +
			"nb-22  x           c:2\n",
		30: "ID     名称        IMAGE\n" + // then the widest is cut, at the end that says less
			"nb-1   容器实例-1  …mple/a/b:1\n" +
			"nb-22  x           c:2\n",
		18: "ID     名称\n" +
			"nb-1   容器实例-1\n" +
			"nb-22  x\n",
		7: "ID\nnb-1\nnb-22\n",
		3: "ID\nnb…\nnb…\n",
	} {
		if got := write(t, sample(), width, false); got != want {
			t.Errorf("%d wide:\n%swant:\n%s", width, got, want)
		}
	}
	tab := sample()
	tab.NoHeader = true
	if got := write(t, tab, 0, true); !strings.HasPrefix(got, "nb-1 ") || !strings.Contains(got, "\x1b[32mregistry.example/a/b:1\x1b[0m") {
		t.Errorf("%q", got)
	}
}

// TestWidths: whatever the width, no line is wider, and the first column is there.
func TestWidths(t *testing.T) {
	for width := 5; width < 60; width++ {
		for _, line := range strings.Split(write(t, sample(), width, false), "\n") {
			if n := table.Width(line); n > width {
				t.Errorf("%d wide is %d: %q", width, n, line)
			}
		}
	}
}

func TestClean(t *testing.T) {
	for text, want := range map[string]string{
		"plain 文字 é":              "plain 文字 é",
		"a\x1b[31mb":              "a?[31mb",
		"a\nb\tc\r\u2028d":        "a b c  d",
		"\x07bell \u009b31m":      "?bell ?31m",
		"right\u202eleft\u2066":   "right?left?",
		"not \xff\xfe text":       "not ? text",
		"":                        "",
		"\x1b]0;title\x07\x00end": "?]0;title??end",
	} {
		if got := table.Clean(text); got != want {
			t.Errorf("%q is %q, want %q", text, got, want)
		}
	}
}

func TestWrap(t *testing.T) {
	for _, tt := range []struct {
		text  string
		width int
		want  []string
	}{
		{"short", 10, []string{"short"}},
		{"one two three four", 9, []string{"one two", "three", "four"}},
		{"没有空格的中文", 8, []string{"没有空格", "的中文"}},
		{"a registry.example/team/image:1", 12, []string{"a registry.e", "xample/team/", "image:1"}},
		{"wide as it is", 0, []string{"wide as it is"}},
		{"too narrow for words", 5, []string{"too narrow for words"}},
	} {
		if got := table.Wrap(tt.text, tt.width); !slices.Equal(got, tt.want) {
			t.Errorf("%q in %d: %q, want %q", tt.text, tt.width, got, tt.want)
		}
	}
}

func TestFields(t *testing.T) {
	f := &table.Fields{}
	f.Add("Name", table.Text("nb-1"))
	f.Add("Nothing", table.Text(""))
	f.Section("Empty")
	f.Section("Image")
	f.Sub("Reference", table.Cell{Text: "a\x1bb", Style: table.Red})
	var out strings.Builder
	if err := f.Write(&out, 0, false); err != nil {
		t.Fatal(err)
	}
	if want := "Name         nb-1\nImage\n  Reference  a?b\n"; out.String() != want {
		t.Errorf("%q, want %q", out.String(), want)
	}
}
