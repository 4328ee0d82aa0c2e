package toycloud_test

import (
	"testing"

	"github.com/notebookd/notebookd/internal/upstream"
	"github.com/notebookd/notebookd/internal/upstream/cloudsim"
	"github.com/notebookd/notebookd/internal/upstream/upstreamtest"
	"github.com/notebookd/notebookd/internal/upstream/upstreamtest/toycloud"
	"github.com/notebookd/notebookd/internal/upstream/upstreamtest/toycloud/toysim"
)

func TestConformance(t *testing.T) {
	upstreamtest.Run(t, func(t *testing.T, client *upstream.Client) upstreamtest.Subject {
		t.Helper()
		sim, err := toysim.Start()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(sim.Close)
		provider, err := toycloud.New(toycloud.Config{Endpoint: sim.URL(), Zones: toysim.Zones, Key: upstream.NewSecret(toysim.Key)}, client)
		if err != nil {
			t.Fatal(err)
		}
		zone := toysim.Zones[0]
		id := sim.Add(zone, 1)[0]
		sim.Off(id)
		s := upstreamtest.Subject{
			Provider: provider, Simulator: sim, Location: zone, PageSize: 50,
			Image:   &upstream.ImageRequest{Location: zone, NotebookID: id, Image: "registry.example.com/toy:2"},
			Changes: func() int { return sim.Changes(id) },
			Secrets: []string{toysim.Key, toysim.Password, toysim.EnvValue},
		}
		for code, want := range map[string]upstream.Kind{
			"no_box": upstream.KindNotFound, "bad_key": upstream.KindDenied, "box_is_on": upstream.KindConflict,
			"slow_down": upstream.KindThrottled, "broken": upstream.KindFault, "never_heard": upstream.KindRejected,
		} {
			s.Failures = append(s.Failures, upstreamtest.Failure{
				Name: "code " + code, Want: want,
				Fault: cloudsim.Fault{Mode: cloudsim.ModeCode, Code: code, Text: "you sent " + toysim.Key},
			})
		}
		return s
	})
}

// TestConfig: all problems are found at once, and none shows the key.
func TestConfig(t *testing.T) {
	if err := (toycloud.Config{Endpoint: "https://toy.example.com", Zones: []string{"a"}, Key: upstream.NewSecret("k")}).Validate(); err != nil {
		t.Error(err)
	}
	err := toycloud.Config{Endpoint: "toy", Zones: []string{"a", "a", "/"}}.Validate()
	const want = "endpoint: must be an http or https URL\nzones[1]: \"a\" is there already\n" +
		"zones[2]: must be made of letters, digits and - _ .\nkey: needed"
	if err == nil || err.Error() != want {
		t.Errorf("problems = %v", err)
	}
}
