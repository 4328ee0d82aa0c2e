package main

import (
	"bytes"
	_ "embed"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc/codes"
)

//go:embed errors.md
var errorsIntro string

var (
	reasonLine = regexp.MustCompile(`^ERROR_REASON_([A-Z_]+) = \d+;$`)
	codeWord   = regexp.MustCompile(`\b[A-Z]{2,}(?:_[A-Z]+)*\b`)
)

// makeErrors makes the reference of errors of the comments of the enum.
func makeErrors(file string) ([]byte, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	_, body, ok := strings.Cut(string(data), "enum ErrorReason {")
	if !ok {
		return nil, fmt.Errorf("%s: no ErrorReason", file)
	}
	var out bytes.Buffer
	out.WriteString(errorsIntro)
	out.WriteString("\n| Reason | gRPC | HTTP | Meaning | What to do |\n|---|---|---|---|---|\n")
	var said []string
	for line := range strings.Lines(body) {
		line = strings.TrimSpace(line)
		if text, ok := strings.CutPrefix(line, "//"); ok {
			said = append(said, strings.TrimSpace(text))
			continue
		}
		match := reasonLine.FindStringSubmatch(line)
		if match == nil {
			said = nil
			continue
		}
		if match[1] != "UNSPECIFIED" {
			if err := writeReason(&out, match[1], strings.Join(said, " ")); err != nil {
				return nil, err
			}
		}
		said = nil
	}
	return out.Bytes(), nil
}

// writeReason writes the row of a reason, whose comment says the codes, the meaning
// and what to do.
func writeReason(out *bytes.Buffer, reason, text string) error {
	meaning, do, ok := strings.Cut(text, " Do: ")
	if !ok {
		return fmt.Errorf("%s does not say what to do", reason)
	}
	first, rest, _ := strings.Cut(meaning, ". ")
	var names, statuses []string
	for _, name := range codeWord.FindAllString(first, -1) {
		var code codes.Code
		if err := code.UnmarshalJSON([]byte(`"` + name + `"`)); err != nil {
			return fmt.Errorf("%s: %w", reason, err)
		}
		names = append(names, "`"+name+"`")
		status := runtime.HTTPStatusFromCode(code)
		if text := strings.TrimSpace(fmt.Sprintf("%d %s", status, http.StatusText(status))); !slices.Contains(statuses, text) {
			statuses = append(statuses, text)
		}
	}
	if len(names) == 0 || rest == "" {
		return fmt.Errorf("%s does not begin with its code", reason)
	}
	if _, more, ok := strings.Cut(first, " when "); ok { // one of the codes only then
		rest = "The last code when " + more + ". " + rest
	}
	do = strings.ToUpper(do[:1]) + do[1:]
	_, err := fmt.Fprintf(out, "| `%s` | %s | %s | %s | %s |\n", reason, strings.Join(names, ", "), strings.Join(statuses, ", "), strings.TrimSpace(rest), strings.TrimSpace(do))
	return err
}
