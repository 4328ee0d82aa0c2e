package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/notebookd/notebookd/internal/upstream/cloudsim"

	notebookv1 "github.com/notebookd/notebookd/gen/notebook/v1"
)

const (
	scnetTorch = "image.ac.com:5000/dcu/admin/base/jupyterlab-pytorch:2.5.1-py3.10"
	allOfSCNet = "NOTEBOOK_ID_CHANGES,CONTAINER_DATA_LOST,ADDRESSES_CHANGE,MOUNTS_NOT_RESTORED,ACCELERATOR_MAY_BE_LOST"
)

var (
	changeName = regexp.MustCompile(`imageChanges/[0-9a-f-]{36}`)
	requestIDs = regexp.MustCompile(`(?:Request id|请求 ID)[:：]\s*([0-9a-f-]{36})`)
)

// runningOf returns the name of a notebook that runs.
func runningOf(t *testing.T, c *caller, parent string) string {
	t.Helper()
	names := strings.Fields(c.want(t, 0, "list", parent, "--filter", "state = RUNNING", "-o", "name").stdout)
	if len(names) == 0 {
		t.Fatalf("nothing runs in %s", parent)
	}
	return names[0]
}

// imageOf returns the image that a notebook has now.
func imageOf(t *testing.T, c *caller, name string) string {
	t.Helper()
	var n notebookv1.Notebook
	if err := protojson.Unmarshal([]byte(c.want(t, 0, "get", name, "-o", "json").stdout), &n); err != nil {
		t.Fatal(err)
	}
	return n.GetImage().GetUri()
}

// TestChangeInPlace: what a change asks of a person, and what becomes of it.
func TestChangeInPlace(t *testing.T) {
	t.Parallel()
	fleet := simulate(t, cloudsim.Config{Notebooks: 6})
	fleet.CoresHub.Set(func(s *cloudsim.CoresHubSettings) { s.AllowRunning = true })
	s := serve(t, fleet, "")
	c := s.caller(t)

	t.Run("whole", func(t *testing.T) {
		r := c.want(t, 0, "change-image", firstName, "--image", torch, "--image-type", "official", "--reason", "a newer torch")
		expect(t, r.stdout, "Notebook  "+firstName, "From", tensorflow, "To", torch, "Steps", "Request id: ", "Change: imageChanges/", "succeeded", "its next start")
		if got := imageOf(t, c, firstName); got != torch {
			t.Errorf("the image is %s", got)
		}
		change := changeName.FindString(r.stdout)
		h := c.want(t, 0, "history", change)
		expect(t, h.stdout, change, "succeeded", "a newer torch", requestIDs.FindStringSubmatch(r.stdout)[1])
		expect(t, c.want(t, 0, "history", firstName, "--limit", "1", "-o", "wide").stdout, "core/xb3/nb-eiguqichl5hc", torch, "succeeded", "a newer torch", change)
		expect(t, c.want(t, 0, "history", change, "-w").stdout, "succeeded")
		expect(t, c.with("LANG", "zh_CN").want(t, 0, "history", "nb-eigu").stdout, "成功", "a newer torch")
	})
	t.Run("previous", func(t *testing.T) {
		r := c.want(t, 0, "change-image", firstName, "--previous", "-o", "json")
		var answer notebookv1.ChangeImageResponse
		if err := protojson.Unmarshal([]byte(r.stdout), &answer); err != nil {
			t.Fatalf("%v: %s", err, r.stdout)
		}
		if answer.GetChange().GetPhase() != notebookv1.ImageChange_PHASE_SUCCEEDED || answer.GetNotebook().GetImage().GetUri() != tensorflow {
			t.Errorf("%s", r.stdout)
		}
		expect(t, r.stderr, "To", tensorflow+" [official]", "Request id: ")
	})
	t.Run("repeated", func(t *testing.T) {
		const id = "0F8FAD5B-d9cb-469f-a165-70867728950e"
		calls := fleet.CoresHub.Calls("change_image")
		args := []string{"change-image", firstName, "--image", torch, "--image-type", "official", "--request-id", id}
		first := c.want(t, 0, args...)
		again := c.want(t, 0, args...)
		if x, y := changeName.FindString(first.stdout), changeName.FindString(again.stdout); x != y || x == "" {
			t.Errorf("changes %q and %q", x, y)
		}
		expect(t, again.stderr, "was accepted before")
		if n := fleet.CoresHub.Calls("change_image") - calls; n != 1 {
			t.Errorf("the cloud was called %d times", n)
		}
		args[1] = runningOf(t, c, "core/xb3")
		expect(t, c.want(t, exitError, args...).stderr, "a change of "+firstName)
		args[1], args[3] = firstName, "other:1"
		expect(t, c.want(t, exitError, args...).stderr, "a change to "+torch)
	})
	t.Run("more than needed", func(t *testing.T) {
		// One command for notebooks that run and those that do not.
		name := strings.Fields(c.want(t, 0, "list", "core", "--filter", "state = STOPPED", "-o", "name").stdout)[0]
		args := []string{"change-image", name, "--image", "registry.example.com/team/more:1", "--image-type", "custom", "--yes", "NOTEBOOK_RUNNING,NOTEBOOK_ID_CHANGES"}
		r := c.want(t, 0, append(args, "-o", "name")...)
		expect(t, r.stderr, "note: --yes names NOTEBOOK_RUNNING, which", "makes no difference", "note: --yes names NOTEBOOK_ID_CHANGES, which")
		refuse(t, c.want(t, 0, "history", strings.TrimSpace(r.stdout)).stdout, "Accepted", "NOTEBOOK_")
		if got := imageOf(t, c, name); got != "registry.example.com/team/more:1" {
			t.Errorf("the image is %s", got)
		}
		args[3] = "registry.example.com/team/more:2"
		expect(t, c.want(t, exitUsage, append(args[:7], "NOTEBOOK_RUNNING,NONE")...).stderr, `"NONE" is no code of a consequence`)
	})
	t.Run("nobody to ask", func(t *testing.T) {
		name := runningOf(t, c, "core")
		before := imageOf(t, c, name)
		args := []string{"change-image", name, "--image", "registry.example.com/team/other:1", "--image-type", "custom"}
		r := c.want(t, exitError, args...)
		expect(t, r.stderr, "nothing was done", "NOTEBOOK_RUNNING", "--yes NOTEBOOK_RUNNING")
		expect(t, c.want(t, exitError, append(args, "--yes", "NOTEBOOK_ID_CHANGES")...).stderr, "--yes names NOTEBOOK_ID_CHANGES, which this change does not bring", "nothing was done")
		// What comes from a pipe is no agreement.
		expect(t, c.runIn(t, "y\ny\n", args...).stderr, "nothing was done")
		if got := imageOf(t, c, name); got != before || c.want(t, 0, "history", name, "-o", "name").stdout != "" {
			t.Errorf("the image is %s", got)
		}
		r = c.want(t, 0, append(args, "--yes", "NOTEBOOK_RUNNING", "-o", "name")...)
		change := strings.TrimSpace(r.stdout)
		expect(t, c.want(t, 0, "history", change).stdout, "Accepted", "NOTEBOOK_RUNNING")
	})
	t.Run("asked", func(t *testing.T) {
		name := runningOf(t, c, "core/xb3")
		before := imageOf(t, c, name)
		args := []string{"change-image", name, "--image", "registry.example.com/team/asked:1", "--image-type", "custom"}
		for _, tt := range []struct {
			lang, question, answer string
			code                   int
			said                   string
		}{
			{"C", "Accept? [y/N]", "n\n", exitError, "Nothing was done."},
			{"C", "Accept? [y/N]", "\n", exitError, "Nothing was done."},
			{"zh_CN.UTF-8", "是否接受？[y/N]", "\x04", exitError, "未做任何改动。"},
			{"zh_CN.UTF-8", "是否接受？[y/N]", "yess\n", exitError, "未做任何改动。"},
			{"C", "Accept? [y/N]", "y\n", exitOK, "succeeded"},
		} {
			if tt.code == exitOK && imageOf(t, c, name) != before {
				t.Fatal("it was changed without an agreement")
			}
			screen := c.with("LANG", tt.lang).onScreen(t, 200, args...)
			within(t, 10*time.Second, "the question", func() bool { return strings.Contains(screen.shown.String(), "[NOTEBOOK_RUNNING] "+tt.question) })
			if _, err := screen.keyboard.WriteString(tt.answer); err != nil {
				t.Fatal(err)
			}
			text, code := screen.wait()
			if code != tt.code {
				t.Errorf("%q ended with %d, want %d\n%s", tt.answer, code, tt.code, text)
			}
			expect(t, text, tt.said)
		}
		// What --yes names is not asked for.
		text, code := c.onScreen(t, 80, "change-image", name, "--image", "registry.example.com/team/named:1", "--image-type", "custom", "--yes", "NOTEBOOK_RUNNING").wait()
		if refuse(t, text, "Accept?"); code != 0 {
			t.Errorf("it ended with %d: %s", code, text)
		}
	})
	t.Run("password", func(t *testing.T) {
		const secret = "pa55-word-of-nobody"
		file := filepath.Join(t.TempDir(), "password")
		if err := os.WriteFile(file, []byte(secret+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		args := []string{"change-image", firstName, "--image-type", "custom", "--registry-user", "me", "--image"}
		all := ""
		for i, how := range []func(args []string) result{
			func(args []string) result { return c.run(t, append(args, "--registry-password-file", file)...) },
			func(args []string) result {
				return c.runIn(t, secret+"\n", append(args, "--registry-password-file", "-")...)
			},
			func(args []string) result {
				return c.with(passwordEnv, secret).run(t, append(args, "--registry-password-file", "env", "-o", "yaml")...)
			},
		} {
			r := how(append(args, "registry.example.com/team/private:"+string(rune('1'+i))))
			if r.code != 0 {
				t.Errorf("%d: it ended with %d: %s", i, r.code, r.stderr)
			}
			all += r.stdout + r.stderr
		}
		screen := c.onScreen(t, 200, append(args, "registry.example.com/team/private:4")...)
		within(t, 10*time.Second, "the question", func() bool { return strings.Contains(screen.shown.String(), "Password of me: ") })
		if _, err := screen.keyboard.WriteString(secret + "\n"); err != nil {
			t.Fatal(err)
		}
		text, code := screen.wait()
		if code != 0 {
			t.Errorf("it ended with %d: %s", code, text)
		}
		refuse(t, all+text+c.run(t, "history", firstName, "-o", "yaml").stdout+s.log.String(), secret)
		expect(t, c.runIn(t, "\n", append(args, "x:1", "--registry-password-file", "-")...).stderr, "empty")
	})
	t.Run("refused by the cloud", func(t *testing.T) {
		fleet.CoresHub.Break(cloudsim.Fault{Mode: cloudsim.ModeCode, Op: "change_image", Code: "1400", Text: "no"})
		defer fleet.CoresHub.Heal()
		r := c.want(t, exitError, "change-image", firstName, "--image", torch, "--image-type", "official")
		expect(t, r.stdout, "failed")
		expect(t, r.stderr, "error: the change failed: ", "1400", "history "+changeName.FindString(r.stdout))
		c.want(t, exitError, "history", changeName.FindString(r.stdout), "-w")
	})
	t.Run("lost", func(t *testing.T) {
		r := c.with("NOTEBOOKCTL_SERVER", "127.0.0.1:1").want(t, exitError, "change-image", firstName, "--image", torch)
		expect(t, r.stderr, "cannot be reached")
	})
}

// TestOutcomeUnknown: the answer of the cloud is lost, and nothing can be read back
// for a while.
func TestOutcomeUnknown(t *testing.T) {
	t.Parallel()
	fleet := simulate(t, cloudsim.Config{Notebooks: 2})
	s := serve(t, fleet, "")
	c := s.caller(t)
	fleet.CoresHub.Break(cloudsim.Fault{Mode: cloudsim.ModeReset, Op: "change_image", Effect: true})
	fleet.CoresHub.Break(cloudsim.Fault{Mode: cloudsim.ModeReset, Op: "list"})
	fleet.CoresHub.Break(cloudsim.Fault{Mode: cloudsim.ModeReset, Op: "detail"})
	args := []string{"change-image", firstName, "--image", torch, "--image-type", "official", "--wait", "12s"}
	r := c.with("LANG", "zh").want(t, exitError, args...)
	change := changeName.FindString(r.stdout)
	expect(t, r.stderr, "错误：变更请求已发出，但云端是否执行尚不明确。", "notebookctl history "+change+" -w")
	// Another one meanwhile is refused, and says what is in its way.
	other := c.run(t, "change-image", firstName, "--image", "registry.example.com/team/other:1", "--image-type", "custom")
	expect(t, other.stderr, "Another image change of the notebook is under way.", "history "+change+" -w", "(CHANGE_IN_PROGRESS)")
	follow := c.start(t, "history", change, "-w")
	within(t, 10*time.Second, "it is followed", func() bool { return strings.Contains(follow.stdout.String(), change) })
	fleet.CoresHub.Heal()
	if code := follow.wait(t); code != 0 {
		t.Errorf("it ended with %d\n%s%s", code, &follow.stdout, &follow.stderr)
	}
	expect(t, follow.stdout.String(), "outcome unknown", "succeeded")
}

// TestChangeRecreates: a change that takes its time, with its phases, ctrl-C, and
// following it.
func TestChangeRecreates(t *testing.T) {
	t.Parallel()
	fleet := simulate(t, cloudsim.Config{Notebooks: 3})
	fleet.SCNet.Set(func(s *cloudsim.SCNetSettings) { s.Transition = cloudsim.Duration(500 * time.Millisecond) })
	s := serve(t, fleet, "")
	c := s.caller(t)
	name := "clouds/scnet/locations/11250/notebooks/" + scnetFirst
	b := c.start(t, "change-image", scnetFirst, "--image", scnetTorch, "--yes", allOfSCNet, "--reason", "slow")
	within(t, 10*time.Second, "a phase", func() bool { return strings.Contains(b.stdout.String(), "creating the new notebook") })
	change := changeName.FindString(b.stdout.String())
	if code := b.end(t); code != exitError {
		t.Errorf("ctrl-C ended with %d", code)
	}
	expect(t, b.stderr.String(), "The change goes on without this command. Follow it with: notebookctl history "+change+" -w")
	r := c.with("LANG", "zh_CN").want(t, 0, "history", change, "-w")
	expect(t, r.stdout, "变更", "笔记本实例", name, "步骤", "用新镜像创建另一个笔记本实例", "成功")
	done := c.want(t, 0, "history", change)
	now := regexp.MustCompile(`New notebook\s+(\S+)`).FindStringSubmatch(done.stdout)
	if now == nil || now[1] == name {
		t.Fatalf("%s", done.stdout)
	}
	// The history of the new one is that of the old one, too.
	expect(t, c.want(t, 0, "history", now[1], "-o", "name").stdout, change)
	expect(t, c.want(t, 0, "history", name, "-o", "name").stdout, change)
	within(t, 10*time.Second, "it is listed", func() bool { return c.run(t, "get", now[1]).code == 0 })
	// Not waiting is no failure, waiting too short is one.
	r = c.want(t, 0, "change-image", now[1], "--previous", "--yes", allOfSCNet, "--wait", "0s")
	expect(t, r.stderr, "Follow it with: notebookctl history imageChanges/")
	id := requestIDs.FindStringSubmatch(r.stdout)[1]
	r = c.want(t, exitError, "change-image", now[1], "--previous", "--yes", allOfSCNet, "--wait", "600ms", "--request-id", id)
	expect(t, r.stderr, "was accepted before", "has not ended within 600ms", "goes on without this command")
	r = c.want(t, 0, "change-image", now[1], "--previous", "--request-id", id)
	expect(t, r.stdout, "succeeded", "The notebook is now clouds/scnet/locations/11250/notebooks/")
}
