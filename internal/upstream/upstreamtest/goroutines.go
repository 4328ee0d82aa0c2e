package upstreamtest

import (
	"runtime"
	"strings"
	"testing"
	"time"
)

// goroutines returns the stack of every goroutine by what names it.
func goroutines() map[string]string {
	for size := 1 << 20; ; size *= 2 {
		buf := make([]byte, size)
		n := runtime.Stack(buf, true)
		if n == size {
			continue
		}
		all := map[string]string{}
		for stack := range strings.SplitSeq(string(buf[:n]), "\n\n") {
			name, _, _ := strings.Cut(stack, " [") // goroutine 7 [running]:
			all[name] = stack
		}
		return all
	}
}

// checkGoroutines waits until every goroutine has ended that was not there
// before. Those that serve a connection end a moment after it was closed.
func checkGoroutines(t *testing.T, before map[string]string) {
	t.Helper()
	var left []string
	ticker := time.NewTicker(time.Millisecond)
	defer ticker.Stop()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); <-ticker.C {
		left = nil
		for name, stack := range goroutines() {
			if _, ok := before[name]; !ok {
				left = append(left, stack)
			}
		}
		if left == nil {
			return
		}
	}
	t.Errorf("%d goroutines are left:\n%s", len(left), strings.Join(left, "\n\n"))
}
