package sentences

import (
	"io"
	"regexp"
	"strings"
)

// Flags returns the output of a flag.FlagSet: what package flag says by itself is said
// in Chinese there. Texts of flags are left as they are.
func Flags(w io.Writer) io.Writer { return flagsOutput{w} }

type flagsOutput struct{ w io.Writer }

var flagDefault = regexp.MustCompile(` ?\(default (.*)\)(\n?)$`)

// Write implements io.Writer. Package flag writes a line, or what it has of a flag, at
// a time.
func (o flagsOutput) Write(p []byte) (int, error) {
	line, end := strings.CutSuffix(string(p), "\n")
	text := flagDefault.ReplaceAllString(Starting(line), "（默认 $1）$2")
	if end {
		text += "\n"
	}
	if _, err := io.WriteString(o.w, text); err != nil {
		return 0, err
	}
	return len(p), nil
}
