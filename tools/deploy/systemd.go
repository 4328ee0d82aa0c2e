package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/unit"
)

// unitName is the service.
const unitName = "notebookd.service"

// credentials is where systemd puts what LoadCredential names.
const credentials = "/run/credentials/" + unitName + "/"

// hardening is what the unit must say, whatever else it says.
var hardening = map[string]string{
	"DynamicUser": "yes", "NoNewPrivileges": "yes", "CapabilityBoundingSet": "", "ProtectSystem": "strict", "ProtectHome": "yes",
	"PrivateTmp": "yes", "PrivateDevices": "yes", "ProtectKernelTunables": "yes", "ProtectKernelModules": "yes", "ProtectControlGroups": "yes",
	"MemoryDenyWriteExecute": "yes", "RestrictNamespaces": "yes", "RestrictSUIDSGID": "yes", "SystemCallArchitectures": "native",
	"RestrictAddressFamilies": "AF_INET AF_INET6 AF_UNIX", "UMask": "0077", "ExecReload": "/bin/kill -HUP $MAINPID", "Restart": "always",
}

// maxExposure is what `systemd-analyze security` may say at most, times ten.
const maxExposure = "15"

func checkSystemd(r *report, root string, notes io.Writer) {
	dir := filepath.Join(root, "deploy", "systemd")
	where := filepath.Join(dir, unitName)
	data, err := os.ReadFile(where)
	if err != nil {
		r.problem(where, "%v", err)
		return
	}
	sections, err := unit.DeserializeSections(bytes.NewReader(data))
	if err != nil {
		r.problem(where, "%v", err)
		return
	}
	values := map[string][]string{}
	for _, s := range sections {
		if s.Section == "Service" {
			for _, e := range s.Entries {
				values[e.Name] = append(values[e.Name], e.Value)
			}
		}
	}
	for _, key := range slices.Sorted(maps.Keys(hardening)) {
		want := hardening[key]
		r.that(slices.Equal(values[key], []string{want}), where, "%s is not %q", key, want)
	}
	r.that(len(values["SystemCallFilter"]) > 0 && len(values["MemoryMax"]) == 1, where, "no SystemCallFilter or no MemoryMax")
	r.that(len(values["WatchdogSec"]) == 0 && slices.Equal(values["Type"], []string{"exec"}), where, "the server tells systemd nothing")
	command := strings.Fields(strings.Join(values["ExecStart"], " "))
	r.that(len(command) == 3 && command[1] == "-config" && command[2] == "/etc/notebookd/notebookd.yaml", where, "ExecStart is not PROGRAM -config FILE")

	file := filepath.Join(dir, "notebookd.yaml")
	config, err := os.ReadFile(file)
	if err != nil {
		r.problem(file, "%v", err)
		return
	}
	checkUnitConfig(r, where, values, parseServerConfig(r, file, config))
	analyze(r, where, data, command, notes)
}

// checkUnitConfig: the unit fits the configuration beside it.
func checkUnitConfig(r *report, where string, values map[string][]string, cfg *serverConfig) {
	given := map[string]bool{}
	for _, c := range values["LoadCredential"] {
		name, _, _ := strings.Cut(c, ":")
		given[credentials+name] = false
	}
	for _, file := range cfg.files {
		_, ok := given[file]
		r.that(ok, where, "the configuration names %s, which is no credential", file)
		given[file] = true
	}
	for _, file := range slices.Sorted(maps.Keys(given)) {
		r.that(given[file], where, "the configuration does not name %s", file)
	}
	r.that(slices.Equal(values["StateDirectory"], []string{strings.TrimPrefix(cfg.dataDir, "/var/lib/")}), where,
		"StateDirectory is not store.data_dir")
	stop, err := time.ParseDuration(strings.Join(values["TimeoutStopSec"], ""))
	r.that(err == nil && stop >= cfg.drain+10*time.Second, where, "it is killed before the drain of %s is over", cfg.drain)
}

// analyze has systemd look at the unit, where it is installed.
func analyze(r *report, where string, data []byte, command []string, notes io.Writer) {
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		_, _ = fmt.Fprintln(notes, "systemd-analyze is not installed: the unit is parsed, and not verified")
		return
	}
	self, err := os.Executable()
	if err != nil || len(command) == 0 {
		r.problem(where, "cannot be verified")
		return
	}
	dir, err := os.MkdirTemp("", "unit-")
	if err != nil {
		r.problem(where, "%v", err)
		return
	}
	defer func() { _ = os.RemoveAll(dir) }()
	// The program need not be installed to look at its unit.
	file := filepath.Join(dir, unitName)
	if err := os.WriteFile(file, bytes.ReplaceAll(data, []byte("="+command[0]+" "), []byte("="+self+" ")), 0o600); err != nil {
		r.problem(where, "%v", err)
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for _, args := range [][]string{{"verify", file}, {"security", "--no-pager", "--offline=true", "--threshold=" + maxExposure, file}} {
		out, err := exec.CommandContext(ctx, "systemd-analyze", args...).CombinedOutput()
		text := strings.TrimSpace(string(out))
		if args[0] == "verify" {
			// It succeeds with keys that it does not know.
			r.that(err == nil && text == "", where, "systemd-analyze verify: %v: %s", err, text)
			continue
		}
		last := text[strings.LastIndex(text, "\n")+1:]
		r.that(err == nil, where, "systemd-analyze security: %v: %s", err, last)
		_, _ = fmt.Fprintln(notes, last)
	}
}
