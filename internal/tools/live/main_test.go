package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/notebookd/notebookd/internal/upstream/cloudsim"
)

func TestSkipsWithoutCredentials(t *testing.T) {
	var out bytes.Buffer
	if !run(t.Context(), func(string) string { return "" }, &out) {
		t.Error("skipping is a failure")
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 2 || !strings.HasPrefix(lines[0], "CoresHub: skipped") || !strings.HasPrefix(lines[1], "SCNet: skipped") {
		t.Errorf("printed:\n%s", out.String())
	}
}

func TestTellsWhatIsSettled(t *testing.T) {
	fleet, err := cloudsim.Start(cloudsim.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer fleet.Close()
	env := map[string]string{
		"CORESHUB_ENDPOINT": fleet.URL("core"), "CORESHUB_USER_ID": cloudsim.CoresHubUserID, "CORESHUB_ZONES": "xb3,xb2",
		"CORESHUB_ACCESS_KEY_ID": cloudsim.CoresHubKeyID, "CORESHUB_SECRET_ACCESS_KEY": cloudsim.CoresHubSecret,
		"SCNET_LOGIN_ENDPOINT": fleet.URL("scnet"), "SCNET_PLATFORM_ENDPOINT": fleet.URL("scnet"),
		"SCNET_USER": cloudsim.SCNetUser, "SCNET_ACCESS_KEY": cloudsim.SCNetAccessKey, "SCNET_SECRET_KEY": cloudsim.SCNetSecretKey,
	}
	show := func(wantOK bool) string {
		var out bytes.Buffer
		if ok := run(t.Context(), func(name string) string { return env[name] }, &out); ok != wantOK {
			t.Errorf("ok = %v, want %v", ok, wantOK)
		}
		for _, secret := range []string{
			cloudsim.CoresHubKeyID, cloudsim.CoresHubSecret, cloudsim.SCNetAccessKey, cloudsim.SCNetSecretKey, cloudsim.SCNetPassword,
			"signature=", "eyJ", "simulated-environment-value", "nb-", cloudsim.SCNetNotebook, "image.ac.com",
		} {
			if strings.Contains(out.String(), secret) {
				t.Errorf("%q is printed:\n%s", secret, out.String())
			}
		}
		return out.String()
	}
	check := func(got string, wants ...string) {
		t.Helper()
		for _, want := range wants {
			if !strings.Contains(got, want) {
				t.Errorf("no %q in:\n%s", want, got)
			}
		}
	}
	check(show(true),
		"CoresHub xb3: 8 notebooks", "path prefix and the lower-case namespace are accepted", "counts is the number of rows of the page × 2",
		"order by created_at: ascending", "times: without a zone × 16", "replica_specs is object × 16", "CoresHub: fields that are not known: none",
		"SCNet 20091: disabled: ", "SCNet: tokens: lasts 4h0m0s × 4", "with /ai, enable is a string false", "form of the list: {total, records} × 2",
		"size 100 gave 8 rows × 2", "customizePort × 16", "SCNet: fields that are not known: none",
	)

	fleet.CoresHub.Set(func(s *cloudsim.CoresHubSettings) { s.Times, s.Counts, s.NewestFirst = "zoned", "zero", true })
	fleet.SCNet.Set(func(s *cloudsim.SCNetSettings) { s.Envelope, s.Spelling, s.AIURL = "C", "table", "bare" })
	check(show(true), "counts is less than the rows", "descending", "with a zone × 16", "{total, data} × 2", "customsizePort × 16", "without /ai, enable is a string true")

	env["CORESHUB_SECRET_ACCESS_KEY"] = "wrong"
	check(show(false), "CoresHub xb3: ", "nothing is settled", "HTTP 200 with ret_code 1200 × 2")
}
