// Webhash notes what the web console was built from: it writes the sums of its sources
// to dist/sources.sha256, which a test compares with the sources.
//
// The console's build calls it last, in the console's folder:
// go run ../internal/tools/webhash
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/notebookd/notebookd/internal/tools/websources"
)

func main() {
	if len(os.Args) != 1 {
		fmt.Fprintln(os.Stderr, "usage: webhash, in the folder of the web console")
		os.Exit(2)
	}
	if err := write(); err != nil {
		fmt.Fprintln(os.Stderr, "webhash:", err)
		os.Exit(1)
	}
}

func write() error {
	sums, err := websources.Sums(context.Background(), ".")
	if err != nil {
		return err
	}
	return os.WriteFile(websources.File, sums, 0o644)
}
