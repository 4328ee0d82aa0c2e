package inventory

import (
	"context"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/notebookd/notebookd/internal/upstream"
)

// account is a configured cloud, for as long as it is configured.
type account struct {
	name   string
	source atomic.Pointer[Source]
	// rediscover has room for one: the locations are to be looked for now.
	rediscover chan struct{}

	// Set while Run polls it, and guarded by Inventory.mu.
	stop context.CancelFunc
	done <-chan struct{} // closed when nobody polls it any more
}

// Source returns a configured cloud by its bare name.
func (inv *Inventory) Source(cloud string) (Source, bool) {
	inv.mu.Lock()
	a, ok := inv.accounts[cloud]
	inv.mu.Unlock()
	if !ok {
		return Source{}, false
	}
	return *a.source.Load(), true
}

// SetSources replaces the clouds that are polled, while Run runs or not. Of one that
// is there with another provider or other intervals, what is known stays, and its
// next poll is soon. One that is new is polled from now on, and one that is gone is
// not shown any more when SetSources returns. One client serves a cloud for as long
// as it has its name and kind.
func (inv *Inventory) SetSources(sources []Source) {
	inv.setting.Lock()
	defer inv.setting.Unlock()
	wanted := map[string]Source{}
	for _, source := range sources {
		source.Poll = source.Poll.withDefaults()
		wanted[source.Name] = source
	}
	inv.mu.Lock()
	before := maps.Clone(inv.accounts)
	inv.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(before)) {
		a := before[name]
		source, ok := wanted[name]
		if !ok || source.Kind != a.source.Load().Kind || source.Client != a.source.Load().Client {
			inv.remove(a)
			continue
		}
		delete(wanted, name)
		inv.replace(a, source)
	}
	for _, name := range slices.Sorted(maps.Keys(wanted)) {
		inv.add(wanted[name])
	}
}

func (inv *Inventory) add(source Source) {
	a := &account{name: source.Name, rediscover: make(chan struct{}, 1)}
	a.source.Store(&source)
	inv.store.addCloud(source)
	if source.Client != nil {
		source.Client.OnBreaker(func(scope string, class upstream.Class) {
			inv.store.touchLocations(func(l *Location) bool {
				return l.Cloud == source.Name && l.breakers == nil && l.guardedBy(scope, class)
			})
		})
	}
	inv.mu.Lock()
	defer inv.mu.Unlock()
	inv.accounts[source.Name] = a
	if inv.start != nil {
		inv.start(a)
	}
}

func (inv *Inventory) replace(a *account, source Source) {
	a.source.Store(&source)
	inv.store.updateCloud(a.name, func(c *Cloud) { c.source = source })
	select {
	case a.rediscover <- struct{}{}:
	default: // it is about to
	}
	inv.mu.Lock()
	defer inv.mu.Unlock()
	for _, p := range inv.pollers {
		if p.account == a {
			p.wake()
		}
	}
}

// remove returns when nobody polls the cloud any more.
func (inv *Inventory) remove(a *account) {
	inv.mu.Lock()
	delete(inv.accounts, a.name)
	stop, done := a.stop, a.done
	inv.mu.Unlock()
	if stop != nil {
		stop()
		<-done
	}
	inv.store.removeCloud(a.name)
}

// run lets f be called with every account, and with those to come, on goroutines of
// their own. stop ends that, and returns when all of them have returned.
func (inv *Inventory) run(ctx context.Context, f func(context.Context, *account)) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	inv.mu.Lock()
	defer inv.mu.Unlock()
	inv.start = func(a *account) { // with mu held
		accountCtx, cancel := context.WithCancel(ctx)
		done := make(chan struct{})
		a.stop, a.done = cancel, done
		wg.Go(func() {
			defer close(done)
			f(accountCtx, a)
		})
	}
	for _, a := range inv.accounts {
		inv.start(a)
	}
	return func() {
		inv.mu.Lock()
		inv.start = nil
		inv.mu.Unlock()
		cancel()
		wg.Wait()
	}
}

// addCloud makes a cloud known, and the locations of which the log holds rows.
func (s *Store) addCloud(source Source) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clouds[source.Name] = &Cloud{Name: source.Name, Kind: source.Kind, source: source, remaining: -1}
	s.names.Ascend(&Row{Name: CloudName(source.Name) + "/"}, func(row *Row) bool {
		if row.Cloud != source.Name {
			return false
		}
		if s.locations[row.Location] == nil {
			s.showLocked(s.unreadLocked(row))
		}
		return true
	})
	s.publishLocked(true)
}

// removeCloud forgets a cloud and its locations. The rows stay in the log, where
// other replicas may still want them, and are not shown.
func (s *Store) removeCloud(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.clouds, name)
	maps.DeleteFunc(s.locations, func(_ string, l *Location) bool { return l.Cloud == name })
	s.publishLocked(true)
}
