package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestRun(t *testing.T) {
	t.Setenv("LC_ALL", "C")
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	file := filepath.Join(t.TempDir(), "sims.yaml")
	for _, tt := range []struct {
		name   string
		args   []string
		code   int
		output string // in what it prints
	}{
		{"shows the configuration", []string{"-port", "0"}, 0, "kind: coreshub"},
		{"writes the configuration", []string{"-port", "0", "-write-config", file}, 0, "bin/server --config " + file},
		{"help", []string{"-h"}, 0, "-seed"},
		{"unknown flag", []string{"-nonsense"}, 2, "-nonsense"},
		{"argument", []string{"start"}, 2, "nothing else is taken"},
		{"negative pace", []string{"-pace", "-1s"}, 2, "-pace not negative"},
		{"file that cannot be", []string{"-port", "0", "-write-config", "/does/not/exist/x"}, 1, "no such file"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var out bytes.Buffer
			if code := run(ended, tt.args, &out, &out); code != tt.code || !strings.Contains(out.String(), tt.output) {
				t.Errorf("exit code %d, want %d; printed:\n%s", code, tt.code, out.String())
			}
		})
	}
	data, err := os.ReadFile(file)
	if err != nil || !strings.Contains(string(data), "kind: scnet") {
		t.Errorf("the file holds %q, %v", data, err)
	}
}

// TestChinese: what is said is Chinese where the locale is.
func TestChinese(t *testing.T) {
	t.Setenv("LC_ALL", "zh_CN.UTF-8")
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for _, tt := range []struct{ args, output string }{
		{"-port=0", "模拟云已启动。故障与设置：http://127.0.0.1:"}, {"-h", "情节的随机种子"}, {"start", "此外不接受其他参数"},
		{"-h", "cloudsim 的用法：\n"}, {"-h", "其后的端口；0 表示任取空闲端口（默认 7070）\n"}, {"-port=x", "选项 -port 的值 \"x\" 无效：格式不对\n"},
	} {
		var out bytes.Buffer
		if run(ended, []string{tt.args}, &out, &out); !strings.Contains(out.String(), tt.output) {
			t.Errorf("%s: printed:\n%s", tt.args, out.String())
		}
	}
}
