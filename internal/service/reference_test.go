package service

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/code"

	notebookv1 "github.com/notebookd/notebookd/gen/notebook/v1"
)

// TestReferenceTellsTheCodes compares docs/errors.md with what callers are told of the
// failures of clouds.
func TestReferenceTellsTheCodes(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "errors.md"))
	if err != nil {
		t.Fatal(err)
	}
	told := map[string]string{}
	for _, row := range regexp.MustCompile("(?m)^\\| `([A-Z_]+)` \\| (.*?) \\|").FindAllStringSubmatch(string(text), -1) {
		told[row[1]] = row[2]
	}
	for number, name := range notebookv1.ErrorReason_name {
		if _, ok := told[strings.TrimPrefix(name, "ERROR_REASON_")]; ok != (number != 0) {
			t.Errorf("%s is in the reference: %t", name, ok)
		}
	}
	for kind, m := range meanings {
		name := strings.TrimPrefix(m.reason.String(), "ERROR_REASON_")
		if want := "`" + code.Code(m.code).String() + "`"; !strings.Contains(told[name], want) {
			t.Errorf("%s: %s comes with %s, the reference says %s", kind, name, want, told[name])
		}
	}
}
