// Package table lays text out for a terminal: tables that fit its width, with
// characters that are two columns wide, and lists of names and values. It knows
// nothing of what is in them, and lets nothing through that a terminal would
// obey: what clouds say is text.
package table

import (
	"bufio"
	"io"
	"strings"
	"unicode"

	"github.com/mattn/go-runewidth"
)

// widths counts the characters whose width is ambiguous, such as "…" and "→", as
// one column, as terminals with UTF-8 do. The package's own default depends on the
// locale.
var widths = &runewidth.Condition{EastAsianWidth: false, StrictEmojiNeutral: true}

// Width returns how many columns of a terminal a text takes.
func Width(text string) int { return widths.StringWidth(text) }

// Clean makes a text of others safe for a terminal: control characters, which
// could move the cursor or rename the window, and characters that turn the
// direction of text become a "?", and white space of every kind a blank.
func Clean(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n', r == '\t', r == '\r', unicode.Is(unicode.Zl, r), unicode.Is(unicode.Zp, r):
			return ' '
		case unicode.IsControl(r), unicode.Is(unicode.Bidi_Control, r):
			return '?'
		default:
			return r
		}
	}, strings.ToValidUTF8(text, "?"))
}

// Fit cuts a text at its end, so that it takes at most width columns. Zero is as
// much as it needs.
func Fit(text string, width int) string {
	if width <= 0 || Width(text) <= width {
		return text
	}
	return widths.Truncate(text, width, "…")
}

// fitEnd cuts a text at its beginning.
func fitEnd(text string, width int) string {
	over := Width(text) - width
	if over <= 0 {
		return text
	}
	return widths.TruncateLeft(text, over+1, "…")
}

// Pad fills a text up with blanks.
func Pad(text string, width int) string {
	if n := width - Width(text); n > 0 {
		return text + strings.Repeat(" ", n)
	}
	return text
}

// Style is how something is shown on a terminal with colours.
type Style string

// The styles.
const (
	Plain  Style = ""
	Bold   Style = "\x1b[1m"
	Dim    Style = "\x1b[2m"
	Red    Style = "\x1b[31m"
	Green  Style = "\x1b[32m"
	Yellow Style = "\x1b[33m"
)

// Paint returns the text in a style, if there are colours.
func (s Style) Paint(text string, colours bool) string {
	if !colours || s == Plain || text == "" {
		return text
	}
	return string(s) + text + "\x1b[0m"
}

// Column describes one column.
type Column struct {
	Title string
	// Min is the width that its cells may be cut to; 0: they are never cut.
	Min int
	// Drop says when it is left out because the terminal is too narrow: first those
	// that say nothing in any row, then the column with the highest number. One with 0
	// stays.
	Drop int
	// KeepEnd cuts a cell at its beginning: the end of an image's reference says more.
	KeepEnd bool
}

// Cell is one cell.
type Cell struct {
	Text  string
	Style Style
}

// Text is a cell without a style.
func Text(text string) Cell { return Cell{Text: text} }

// Table is a table. All its rows are kept until it is written, since their widths
// decide.
type Table struct {
	Columns []Column
	// NoHeader leaves the titles out.
	NoHeader bool
	rows     [][]Cell
}

// Add adds a row, with a cell for each column.
func (t *Table) Add(cells ...Cell) {
	for i := range cells {
		cells[i].Text = Clean(cells[i].Text)
		if cells[i].Text == "" {
			cells[i].Text = "-"
		}
	}
	t.rows = append(t.rows, cells)
}

// gap is between two columns.
const gap = 2

// Write writes the table, at most width columns wide; zero stands for as wide as it
// has to be.
func (t *Table) Write(w io.Writer, width int, colours bool) error {
	out := bufio.NewWriter(w)
	shown, size := t.fit(width)
	line := func(cell func(column int) Cell) {
		for i, column := range shown {
			c := cell(column)
			if t.Columns[column].KeepEnd {
				c.Text = fitEnd(c.Text, size[i])
			} else {
				c.Text = Fit(c.Text, size[i])
			}
			_, _ = out.WriteString(c.Style.Paint(c.Text, colours)) // Flush tells
			if i < len(shown)-1 {
				_, _ = out.WriteString(strings.Repeat(" ", max(0, size[i]-Width(c.Text))+gap))
			}
		}
		_ = out.WriteByte('\n')
	}
	if !t.NoHeader {
		line(func(column int) Cell { return Cell{t.Columns[column].Title, Bold} })
	}
	for _, row := range t.rows {
		line(func(column int) Cell { return row[column] })
	}
	return out.Flush()
}

// fit chooses the columns that are shown and how wide they are.
func (t *Table) fit(width int) (shown, size []int) {
	natural, says := make([]int, len(t.Columns)), make([]bool, len(t.Columns))
	for i, column := range t.Columns {
		natural[i] = Width(column.Title)
		for _, row := range t.rows {
			natural[i] = max(natural[i], Width(row[i].Text))
			says[i] = says[i] || row[i].Text != "-"
		}
		shown = append(shown, i)
	}
	least := func(i int) int {
		if m := t.Columns[i].Min; m > 0 {
			return min(natural[i], max(m, Width(t.Columns[i].Title)))
		}
		return natural[i]
	}
	sum := func(of func(int) int) int {
		total := gap * (len(shown) - 1)
		for _, i := range shown {
			total += of(i)
		}
		return total
	}
	drop := func(may func(column int) bool) bool {
		last := -1
		for at, i := range shown {
			if d := t.Columns[i].Drop; d > 0 && may(i) && (last < 0 || d > t.Columns[shown[last]].Drop) {
				last = at
			}
		}
		if last >= 0 {
			shown = append(shown[:last:last], shown[last+1:]...)
		}
		return last >= 0
	}
	whole := func(i int) int { return natural[i] }
	for dropped := true; dropped && width > 0 && sum(whole) > width; {
		dropped = drop(func(i int) bool { return !says[i] })
	}
	for dropped := true; dropped && width > 0 && sum(least) > width; {
		dropped = drop(func(int) bool { return true })
	}
	for _, i := range shown {
		size = append(size, natural[i])
	}
	if width <= 0 {
		return shown, size
	}
	// What is still too much is taken from the widest that may be cut; when
	// nothing may be, the terminal is narrower than any table, and all are cut.
	for excess := sum(whole) - width; excess > 0; excess-- {
		widest := -1
		for at, i := range shown {
			if size[at] > least(i) && (widest < 0 || size[at] > size[widest]) {
				widest = at
			}
		}
		if widest < 0 {
			for at := range shown {
				if size[at] > 1 && (widest < 0 || size[at] > size[widest]) {
					widest = at
				}
			}
		}
		if widest < 0 {
			break
		}
		size[widest]--
	}
	return shown, size
}

// Fields is a list of names and values, of which those without a value are left
// out.
type Fields struct {
	rows []field
}

type field struct {
	name   string
	value  Cell
	indent int
	head   bool
}

// Add adds a name and its value; none is added for an empty one.
func (f *Fields) Add(name string, value Cell) {
	if value.Text != "" {
		value.Text = Clean(value.Text)
		f.rows = append(f.rows, field{name: name, value: value})
	}
}

// Section begins a part with a title. What is added by Sub belongs to it; a part of
// which there is nothing is not shown.
func (f *Fields) Section(title string) {
	f.rows = append(f.rows, field{name: title, head: true})
}

// Sub adds a name and its value to a section.
func (f *Fields) Sub(name string, value Cell) {
	if value.Text != "" {
		value.Text = Clean(value.Text)
		f.rows = append(f.rows, field{name: Clean(name), value: value, indent: 2})
	}
}

// Write writes the list. Values that are too wide go on in further lines, aligned.
func (f *Fields) Write(w io.Writer, width int, colours bool) error {
	out := bufio.NewWriter(w)
	column := 0
	for _, row := range f.rows {
		if !row.head {
			column = max(column, row.indent+Width(row.name)+gap)
		}
	}
	if width > 0 {
		column = min(column, max(width/2, 12))
	}
	for i, row := range f.rows {
		if row.head {
			if i+1 < len(f.rows) && f.rows[i+1].indent > 0 {
				_, _ = out.WriteString(Bold.Paint(row.name, colours) + "\n") // Flush tells
			}
			continue
		}
		name := strings.Repeat(" ", row.indent) + row.name
		for j, part := range Wrap(row.value.Text, width-column) {
			if j > 0 {
				name = ""
			}
			_, _ = out.WriteString(Pad(Fit(name, column-1), column) + row.value.Style.Paint(part, colours) + "\n")
		}
	}
	return out.Flush()
}

// Wrap breaks a text into lines of at most width columns, at blanks where there are
// some. Zero or less, and what is too narrow for words, breaks nothing.
func Wrap(text string, width int) []string {
	if width < 8 || Width(text) <= width {
		return []string{text}
	}
	var lines []string
	line := ""
	for _, word := range strings.Split(text, " ") {
		for Width(word) > width { // a reference, or a language without blanks
			if line != "" {
				room := width - Width(line) - 1
				if room < 2 {
					lines, line = append(lines, line), ""
					continue
				}
				head := cut(word, room)
				lines, line, word = append(lines, line+" "+head), "", word[len(head):]
				continue
			}
			head := cut(word, width)
			lines, word = append(lines, head), word[len(head):]
		}
		switch {
		case line == "":
			line = word
		case Width(line)+1+Width(word) <= width:
			line += " " + word
		default:
			lines, line = append(lines, line), word
		}
	}
	if line != "" {
		lines = append(lines, line)
	}
	return lines
}

// cut returns the beginning of a text that takes at most width columns, and at
// least one character.
func cut(text string, width int) string {
	head := widths.Truncate(text, width, "")
	if head == "" {
		for i := range text {
			if i > 0 {
				return text[:i]
			}
		}
		return text
	}
	return head
}
