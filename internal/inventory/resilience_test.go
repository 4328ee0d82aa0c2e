package inventory

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	notebookv1 "github.com/notebookd/notebookd/gen/notebook/v1"
	"github.com/notebookd/notebookd/internal/upstream"
	"github.com/notebookd/notebookd/internal/upstream/coreshub"
)

// wire is a cloud behind a real dialect and a real client: what is sent to it
// is what a cloud would get.
type wire struct {
	mu    sync.Mutex // guards what is below
	calls []time.Time
	err   error // instead of an answer
	rows  int   // of each zone
	write int   // image changes
}

// RoundTrip implements http.RoundTripper.
func (w *wire) RoundTrip(req *http.Request) (*http.Response, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.calls = append(w.calls, time.Now())
	if w.err != nil {
		return nil, w.err
	}
	var data any
	if req.Method == http.MethodPost {
		w.write++
		var body struct{ UUID, Image string }
		if err := json.NewDecoder(req.Body).Decode(&body); err != nil {
			return nil, err
		}
		data = map[string]any{"uuid": body.UUID, "image": body.Image, "status": "Suspended"}
	} else {
		q := req.URL.Query()
		offset, _ := strconv.Atoi(q.Get("offset"))
		limit, _ := strconv.Atoi(q.Get("limit"))
		rows := []map[string]any{}
		for i := offset; i < min(offset+limit, w.rows); i++ {
			rows = append(rows, map[string]any{"uuid": fmt.Sprintf("nb-%s-%04d", q.Get("zone"), i), "status": "Pending"})
		}
		data = rows
	}
	body, err := json.Marshal(map[string]any{"ret_code": 0, "message": "success", "data": data})
	if err != nil {
		return nil, err
	}
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(string(body)))}, nil
}

func (w *wire) set(change func(*wire)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change(w)
}

func (w *wire) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.calls)
}

// mostInAnHour is the highest number of calls within any hour.
func (w *wire) mostInAnHour() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	most, first := 0, 0
	for i, at := range w.calls {
		for at.Sub(w.calls[first]) >= time.Hour {
			first++
		}
		most = max(most, i-first+1)
	}
	return most
}

// wired runs an inventory over a wire. It must be called inside a synctest
// bubble.
func wired(t *testing.T, w *wire, cfg upstream.ClientConfig, poll PollConfig, zones ...string) (*Inventory, upstream.Provider) {
	t.Helper()
	cfg.Cloud, cfg.Transport = "core", w
	client := upstream.NewClient(cfg)
	provider, err := coreshub.New(coreshub.Config{
		Zones: zones, UserID: "usr-1", AccessKeyID: upstream.NewSecret("ak"), SecretAccessKey: upstream.NewSecret("sk"),
	}, client)
	if err != nil {
		t.Fatal(err)
	}
	inv, _ := testInventoryFrom(t, Source{Name: "core", Kind: "coreshub", Provider: provider, Client: client, Poll: poll})
	return inv, provider
}

// TestDeadCloudIsNotHammered: in an hour a cloud that is down gets the calls
// that the breaker's settings predict, and not one more when everybody watches
// and lists it.
func TestDeadCloudIsNotHammered(t *testing.T) {
	const openFor = 30 * time.Second
	run := func(watchers, lists int) (sent int) {
		synctest.Test(t, func(t *testing.T) {
			w := &wire{err: errors.New("connection refused")}
			inv, _ := wired(t, w, upstream.ClientConfig{
				Breaker: upstream.BreakerConfig{Window: time.Minute, MinRequests: 5, FailureRatio: 0.5, OpenFor: openFor},
			}, PollConfig{Fast: time.Second, Normal: 5 * time.Second, Idle: time.Minute}, "xb3")
			for range watchers {
				defer inv.Watching()()
			}
			for range lists {
				inv.Listed()
				time.Sleep(time.Hour / time.Duration(lists+1))
			}
			time.Sleep(time.Hour - time.Duration(lists)*(time.Hour/time.Duration(lists+1)))
			sent = w.count()
			l := status(t, inv)
			if l.State != notebookv1.Location_STATE_UNREACHABLE || l.Reason().Kind != upstream.KindCircuitOpen && l.Reason().Kind != upstream.KindUnavailable {
				t.Errorf("after an hour the location is %v, %+v", l.State, l.Reason())
			}
		})
		return sent
	}
	// Five polls five seconds apart open the breaker; then one probe at the end
	// of each time that it is open.
	predicted := 5 + int((time.Hour-20*time.Second)/openFor)
	quiet, busy := run(0, 0), run(1000, 10000)
	t.Logf("predicted %d, sent %d, with watchers %d", predicted, quiet, busy)
	for _, sent := range []int{quiet, busy} {
		if sent < predicted-1 || sent > predicted+1 { // the first polls are jittered
			t.Errorf("%d calls in an hour, want %d", sent, predicted)
		}
	}
}

// TestQuotaIsKept: three zones, a thousand notebooks in transition and a
// hundred image changes stay below the vendor's quota in every hour, no zone
// starves, and no change waits.
func TestQuotaIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &wire{rows: 334}
		inv, provider := wired(t, w, upstream.ClientConfig{Budget: upstream.BudgetConfig{CallsPerHour: 2000, Burst: 200}},
			PollConfig{Fast: 5 * time.Second}, "xb3", "xb2", "hb2")
		defer inv.Watching()()
		for i := range 100 {
			time.Sleep(time.Hour * 6 / 5 / 100)
			_, err := provider.ChangeImage(t.Context(), upstream.ImageRequest{
				Location: "xb3", NotebookID: fmt.Sprintf("nb-xb3-%04d", i), Image: "i", ImageType: "official",
			})
			if err != nil {
				t.Fatalf("change %d: %v", i, err)
			}
			for _, zone := range []string{"xb3", "xb2", "hb2"} {
				l, _ := inv.Snapshot().Location("clouds/core/locations/" + zone)
				if age := time.Since(l.LastSuccess); age > 5*time.Minute || l.State != notebookv1.Location_STATE_LIVE {
					t.Errorf("%s is %v and %v old", zone, l.State, age)
				}
			}
		}
		most := w.mostInAnHour()
		t.Logf("%d calls, at most %d in an hour; poll interval %v", w.count(), most, status(t, inv).Interval)
		if most > 2000 {
			t.Errorf("%d calls in an hour", most)
		}
		if most < 1500 {
			t.Errorf("only %d calls in an hour: the quota is not used", most)
		}
	})
}

// TestBreakerChangesAreNews: watchers hear of every change of a breaker's state.
func TestBreakerChangesAreNews(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &wire{rows: 1}
		inv, _ := wired(t, w, upstream.ClientConfig{
			Breaker: upstream.BreakerConfig{Window: time.Minute, MinRequests: 2, FailureRatio: 0.5, OpenFor: 30 * time.Second},
		}, PollConfig{Fast: 5 * time.Second, Normal: 5 * time.Second, Idle: 5 * time.Second}, "xb3")
		synctest.Wait()
		var seen []string
		version := uint64(0)
		note := func() {
			l := status(t, inv)
			breaker := "none"
			for _, b := range l.Breakers() {
				breaker = []string{"closed", "half-open", "open"}[b.State]
			}
			now := stateWord(l.State) + "/" + breaker
			if len(seen) == 0 || seen[len(seen)-1] != now {
				seen = append(seen, now)
				if l.Version() <= version {
					t.Errorf("watchers are not told of %s", now)
				}
				version = l.Version()
			}
		}
		note()
		w.set(func(w *wire) { w.err = errors.New("connection refused") })
		deadline := time.After(5 * time.Minute)
		heal := time.After(time.Minute)
		for done := false; !done; {
			snapshot := inv.Snapshot()
			note()
			select {
			case <-snapshot.Superseded():
			case <-heal:
				w.set(func(w *wire) { w.err = nil })
			case <-deadline:
				done = true
			}
		}
		got := strings.Join(seen, " ")
		// The breaker is told of first, since it opens before the poll has ended.
		want := regexp.MustCompile(`^live/closed (live/open )?stale/open unreachable/open .*live/closed$`)
		if !want.MatchString(got) {
			t.Errorf("seen %s, want %v", got, want)
		}
	})
}

// TestPollThatHangsMakesStale: rows become too old while a poll does not end,
// and watchers are told before it fails.
func TestPollThatHangsMakesStale(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud := &fakeCloud{notebooks: notebooks("a")}
		inv, _ := testInventory(t, cloud) // polls every minute, ±10 %
		synctest.Wait()
		began := time.Now()
		cloud.set(func(f *fakeCloud) { f.hang = time.Hour })
		for snapshot := inv.Snapshot(); status(t, inv).State == notebookv1.Location_STATE_LIVE; snapshot = inv.Snapshot() {
			<-snapshot.Superseded()
		}
		l := status(t, inv)
		if age := time.Since(began); age < 2*time.Minute || age > 2*time.Minute+30*time.Second {
			t.Errorf("STALE after %v", age)
		}
		if l.State != notebookv1.Location_STATE_STALE || l.Failure.Kind != upstream.KindTimeout || !l.LastAttempt.Equal(l.LastSuccess) {
			t.Errorf("the location is %v, %+v", l.State, l.Failure)
		}
		if len(ids(inv.Snapshot())) != 1 {
			t.Error("a hanging poll took rows away")
		}
	})
}
