package scnet_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/notebookd/notebookd/internal/upstream"
	"github.com/notebookd/notebookd/internal/upstream/cloudsim"
	"github.com/notebookd/notebookd/internal/upstream/scnet"
)

// recreating is a simulated cloud over HTTP and a Provider that may write to it.
type recreating struct {
	sim    *cloudsim.SCNet
	client *upstream.Client
	p      *scnet.Provider
	region string
}

// start starts a cloud; with login false a token of its first region is
// configured.
func start(t *testing.T, login bool, cfg upstream.ClientConfig, settle func(*cloudsim.SCNetSettings, *scnet.Config)) *recreating {
	t.Helper()
	fleet, err := cloudsim.Start(cloudsim.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fleet.Close)
	r := &recreating{sim: fleet.SCNet, region: cloudsim.SCNetRegions[0]}
	config := scnet.Config{PlatformEndpoint: fleet.URL("scnet")}
	if login {
		config.LoginEndpoint, config.User = fleet.URL("scnet"), cloudsim.SCNetUser
		config.AccessKey, config.SecretKey = upstream.NewSecret(cloudsim.SCNetAccessKey), upstream.NewSecret(cloudsim.SCNetSecretKey)
	} else {
		config.Regions = []scnet.Region{{ID: r.region, Endpoint: fleet.URL(r.region), Token: upstream.NewSecret(r.sim.Token(r.region))}}
	}
	r.sim.Set(func(s *cloudsim.SCNetSettings) {
		s.Transition, s.Echo = cloudsim.Duration(50*time.Millisecond), true
		settle(s, &config)
	})
	cfg.Cloud = "scnet"
	r.client = upstream.NewClient(cfg)
	t.Cleanup(r.client.Close)
	if r.p, err = scnet.New(config, r.client); err != nil {
		t.Fatal(err)
	}
	return r
}

// await reads a notebook until it is in a state.
func (r *recreating) await(t *testing.T, id string, want upstream.State) upstream.Notebook {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; {
		n, err := r.p.Find(t.Context(), r.region, id)
		if err != nil {
			t.Fatal(err)
		}
		if n.State == want {
			return n
		}
		if !n.State.InTransition() || time.Now().After(deadline) {
			t.Fatalf("notebook %s is %s (%s), want state %d", id, n.CloudState, n.StateMessage, want)
		}
	}
}

// TestRecreate replaces a notebook as a whole, with each way to get a token.
func TestRecreate(t *testing.T) {
	for _, tt := range []struct {
		name   string
		login  bool
		settle func(*cloudsim.SCNetSettings, *scnet.Config)
	}{
		{"login", true, func(*cloudsim.SCNetSettings, *scnet.Config) {}},
		{"configured region", false, func(*cloudsim.SCNetSettings, *scnet.Config) {}},
		{"token of the platform", true, func(s *cloudsim.SCNetSettings, c *scnet.Config) {
			s.CreateToken, c.CreateToken = "platform", "platform"
		}},
		{"other forms", true, func(s *cloudsim.SCNetSettings, _ *scnet.Config) {
			s.Envelope, s.Spelling, s.NumbersAsText, s.PageCap, s.NamesUnique = "C", "table", true, 2, true
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := start(t, tt.login, upstream.ClientConfig{}, tt.settle)
			ctx, old := t.Context(), cloudsim.SCNetNotebook
			do := func(what string, err error) {
				t.Helper()
				if err != nil {
					t.Fatalf("%s: %v", what, err)
				}
			}
			do("start", r.p.Start(ctx, r.region, old))
			before := r.await(t, old, upstream.StateRunning)
			image, err := r.p.ResolveImage(ctx, r.region, cloudsim.SCNetImage, before.Resources.Accelerator.Type)
			do("resolve", err)
			do("stop", r.p.Stop(ctx, r.region, old, true))
			r.await(t, old, upstream.StateStopped)
			do("stop again", r.p.Stop(ctx, r.region, old, true))
			id, err := r.p.Create(ctx, r.region, upstream.NotebookSpec{
				Image: image, Accelerator: before.Resources.Accelerator.Type, Cards: before.Resources.Accelerator.Count,
				ResourceGroup: before.ResourceGroup.Code,
			})
			do("create", err)
			r.await(t, id, upstream.StateRunning)
			if r.sim.Settings().NamesUnique {
				if err := r.p.Rename(ctx, r.region, id, before.DisplayName); upstream.KindOf(err) != upstream.KindInvalid {
					t.Errorf("a name that is taken: %v", err)
				}
				do("rename the old one", r.p.Rename(ctx, r.region, old, before.DisplayName+"-old"))
			}
			do("rename", r.p.Rename(ctx, r.region, id, before.DisplayName))
			do("release", r.p.Release(ctx, r.region, old))
			if _, err := r.p.Find(ctx, r.region, old); upstream.KindOf(err) != upstream.KindNotFound {
				t.Errorf("the old one: %v", err)
			}

			after, err := r.p.Find(ctx, r.region, id)
			do("find", err)
			type same struct {
				Name, State, Group, URI, Image, Kind string
				Size                                 int64
				Cards                                int32
			}
			of := func(n upstream.Notebook) same {
				return same{
					n.DisplayName, n.CloudState, n.ResourceGroup.Code, n.Image.URI, n.Image.DisplayName, n.Resources.Accelerator.Type,
					n.Image.SizeBytes, n.Resources.Accelerator.Count,
				}
			}
			want := of(before)
			want.URI, want.Image, want.Size = image.URI, image.Name, image.SizeBytes
			if diff := cmp.Diff(want, of(after)); diff != "" {
				t.Errorf("the new one (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff([][]string{{id}, {old}}, [][]string{r.sim.Created(), r.sim.Released()}); diff != "" {
				t.Errorf("created and released (-want +got):\n%s", diff)
			}
			if r.sim.Settings().PageCap > 0 {
				return // pages that small make no list
			}
			rows, err := r.p.List(ctx, r.region)
			do("list", err)
			if slices.ContainsFunc(rows, func(n upstream.Notebook) bool { return n.ID == old }) || len(rows) != len(r.sim.Truth(r.region)) {
				t.Errorf("the list has %d rows and perhaps the old one", len(rows))
			}
		})
	}
}

// TestResolveImageOfTheCloud searches the simulated lists.
func TestResolveImageOfTheCloud(t *testing.T) {
	r := start(t, true, upstream.ClientConfig{}, func(*cloudsim.SCNetSettings, *scnet.Config) {})
	for _, tt := range []struct {
		name, region, image, accelerator, want string
	}{
		{"by reference", r.region, cloudsim.SCNetImage, "dcu", cloudsim.SCNetImage},
		{"by name and tag", r.region, "jupyterlab-pytorch:2.5.1-py3.10", "DCU", cloudsim.SCNetImage},
		{"private", r.region, cloudsim.SCNetPrivateImage, "dcu", cloudsim.SCNetPrivateImage},
		{"private by name", r.region, "team-env:7", "dcu", cloudsim.SCNetPrivateImage},
		{"with a model", r.region, "qwen3-vllm:0.9.1", "dcu", cloudsim.SCNetModelImage},
		{"not complete", r.region, cloudsim.SCNetUnfinishedImage, "dcu", ""},
		{"for others", r.region, cloudsim.SCNetGPUImage, "dcu", ""},
		{"for these", r.region, cloudsim.SCNetGPUImage, "gpu", cloudsim.SCNetGPUImage},
		{"elsewhere", r.region, cloudsim.SCNetDistantImage, "dcu", ""},
		{"there", "20057", cloudsim.SCNetDistantImage, "dcu", cloudsim.SCNetDistantImage},
		{"nowhere", r.region, "registry.example.com/a:1", "dcu", ""},
	} {
		got, err := r.p.ResolveImage(t.Context(), tt.region, tt.image, tt.accelerator)
		if got.URI != tt.want || (err != nil) != (tt.want == "") || err != nil && upstream.KindOf(err) != upstream.KindImageNotFound {
			t.Errorf("%s: %+v, %v, want %q", tt.name, got, err, tt.want)
		}
		if err == nil && (got.SizeBytes == 0 || got.Name == "") {
			t.Errorf("%s: %+v", tt.name, got)
		}
	}
}

// TestWritesThatFail: whatever goes wrong, a write reaches the cloud at most
// once, the error says whether it may have, and what was done all the same is
// there to be found.
func TestWritesThatFail(t *testing.T) {
	failures := []struct {
		name  string
		fault cloudsim.Fault
		want  upstream.Kind
	}{
		{"refused", cloudsim.Fault{Mode: cloudsim.ModeRefuse}, upstream.KindUnavailable},
		{"reset", cloudsim.Fault{Mode: cloudsim.ModeReset}, upstream.KindUnavailable},
		{"no answer", cloudsim.Fault{Mode: cloudsim.ModeHang}, upstream.KindTimeout},
		{"cut", cloudsim.Fault{Mode: cloudsim.ModeCut}, upstream.KindUnavailable},
		{"half", cloudsim.Fault{Mode: cloudsim.ModeHalf}, upstream.KindBadResponse},
		{"types", cloudsim.Fault{Mode: cloudsim.ModeTypes}, upstream.KindBadResponse},
		{"html", cloudsim.Fault{Mode: cloudsim.ModeHTML}, upstream.KindBadResponse},
		{"gateway", cloudsim.Fault{Mode: cloudsim.ModeHTML, Status: 502}, upstream.KindUnavailable},
		{"empty", cloudsim.Fault{Mode: cloudsim.ModeEmpty}, upstream.KindBadResponse},
		{"internal", cloudsim.Fault{Mode: cloudsim.ModeCode, Code: "10001"}, upstream.KindFault},
		{"interrupted", cloudsim.Fault{Mode: cloudsim.ModeCode, Code: "10012"}, upstream.KindUnavailable},
		{"task", cloudsim.Fault{Mode: cloudsim.ModeCode, Code: "716865"}, upstream.KindRejected},
		{"throttled", cloudsim.Fault{Mode: cloudsim.ModeStatus, Status: 429}, upstream.KindThrottled},
		{"too large", cloudsim.Fault{Mode: cloudsim.ModeHuge}, upstream.KindBadResponse},
	}
	writes := map[string]func(ctx context.Context, r *recreating) error{
		"create": func(ctx context.Context, r *recreating) error {
			_, err := r.p.Create(ctx, r.region, upstream.NotebookSpec{
				Image: upstream.ImageRef{URI: cloudsim.SCNetImage, Name: "jupyterlab-pytorch:2.5.1-py3.10", SizeBytes: 1}, Accelerator: "dcu", Cards: 1,
			})
			return err
		},
		"start": func(ctx context.Context, r *recreating) error {
			return r.p.Start(ctx, r.region, cloudsim.SCNetNotebook)
		},
		"rename": func(ctx context.Context, r *recreating) error {
			return r.p.Rename(ctx, r.region, cloudsim.SCNetNotebook, "another name")
		},
		"release": func(ctx context.Context, r *recreating) error {
			return r.p.Release(ctx, r.region, cloudsim.SCNetNotebook)
		},
		"stop": func(ctx context.Context, r *recreating) error {
			return r.p.Stop(ctx, r.region, cloudsim.SCNetNotebook, true)
		},
	}
	for op, write := range writes {
		for _, f := range failures {
			t.Run(op+" "+f.name, func(t *testing.T) {
				t.Parallel()
				cfg := upstream.ClientConfig{}
				if f.fault.Mode == cloudsim.ModeHang {
					cfg.Timeout = 500 * time.Millisecond
				}
				r := start(t, true, cfg, func(s *cloudsim.SCNetSettings, _ *scnet.Config) { s.Transition = cloudsim.Duration(time.Hour) })
				if op == "stop" {
					if err := writes["start"](t.Context(), r); err != nil {
						t.Fatal(err)
					}
				}
				// On a connection that was kept, as net/http sends some requests
				// on those again.
				if _, err := r.p.List(t.Context(), r.region); err != nil {
					t.Fatal(err)
				}
				before := r.sim.Truth(r.region)
				fault := f.fault
				refused := fault.Mode == cloudsim.ModeRefuse
				if !refused {
					fault.Op, fault.Effect = op, true
				}
				r.sim.Break(fault)
				if refused {
					r.client.Close()
				}
				err := write(t.Context(), r)
				if upstream.KindOf(err) != f.want || upstream.MaySent(err) == refused || upstream.IsContext(err) {
					t.Errorf("%v (%T), sent %v, want %v", err, err, upstream.MaySent(err), f.want)
				}
				calls := 1
				if refused {
					calls = 0
				}
				if n := r.sim.Calls(op); n != calls {
					t.Errorf("%d calls, want %d", n, calls)
				}
				if changed := !slices.Equal(before, r.sim.Truth(r.region)); changed == refused {
					t.Errorf("something happened: %v", changed)
				}
			})
		}
		t.Run(op+" of a caller who leaves", func(t *testing.T) {
			t.Parallel()
			r := start(t, true, upstream.ClientConfig{}, func(*cloudsim.SCNetSettings, *scnet.Config) {})
			if _, err := r.p.List(t.Context(), r.region); err != nil {
				t.Fatal(err)
			}
			r.sim.Break(cloudsim.Fault{Op: op, Mode: cloudsim.ModeHang})
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if err := write(ctx, r); !upstream.IsContext(err) || !upstream.MaySent(err) || r.sim.Calls(op) != 1 {
				t.Errorf("%v (%T), sent %v, %d calls", err, err, upstream.MaySent(err), r.sim.Calls(op))
			}
		})
	}
}

// TestStaleToken: tokens that have ended are replaced in the middle of a write,
// which is done once.
func TestStaleToken(t *testing.T) {
	for _, status := range []int{200, 401} {
		r := start(t, true, upstream.ClientConfig{}, func(s *cloudsim.SCNetSettings, _ *scnet.Config) { s.StaleStatus = status })
		if err := r.p.Start(t.Context(), r.region, cloudsim.SCNetNotebook); err != nil {
			t.Fatal(err)
		}
		r.sim.Expire()
		if _, err := r.p.Create(t.Context(), r.region, upstream.NotebookSpec{
			Image: upstream.ImageRef{URI: cloudsim.SCNetImage, Name: "jupyterlab-pytorch:2.5.1-py3.10", SizeBytes: 1}, Accelerator: "dcu", Cards: 1,
		}); err != nil {
			t.Error(err)
		}
		if n := r.sim.Calls("create"); n != 2 || len(r.sim.Created()) != 1 {
			t.Errorf("%d calls created %v", n, r.sim.Created())
		}
	}
}

// TestCreateEndsAsFailed: what keeps a notebook from running is told by the
// notebook.
func TestCreateEndsAsFailed(t *testing.T) {
	for _, tt := range []struct {
		name   string
		image  string
		settle func(*cloudsim.SCNetSettings, *scnet.Config)
		want   string
	}{
		{"an image that is not there", "registry.example.com/a:1", func(*cloudsim.SCNetSettings, *scnet.Config) {}, "image pull failed: manifest for registry.example.com/a:1 not found: manifest unknown"},
		{"a setting", cloudsim.SCNetImage, func(s *cloudsim.SCNetSettings, _ *scnet.Config) { s.CreateFails = "image pull failed: no space left" }, "image pull failed: no space left"},
		{"no cards", cloudsim.SCNetImage, func(s *cloudsim.SCNetSettings, _ *scnet.Config) { s.Pool = 0 }, "no node has enough free cards"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := start(t, false, upstream.ClientConfig{}, tt.settle)
			id, err := r.p.Create(t.Context(), r.region, upstream.NotebookSpec{
				Image: upstream.ImageRef{URI: tt.image, Name: "a:1", SizeBytes: 1}, Accelerator: "dcu", Cards: 1,
			})
			if err != nil {
				t.Fatal(err)
			}
			if n := r.await(t, id, upstream.StateFailed); n.StateMessage != tt.want || n.Image.URI != tt.image || n.Image.DisplayName != "a:1" {
				t.Errorf("%s: %+v", n.StateMessage, n.Image)
			}
		})
	}
}
