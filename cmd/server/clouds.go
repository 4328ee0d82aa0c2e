package main

import (
	"fmt"
	"log/slog"
	"reflect"
	"slices"

	"github.com/notebookd/notebookd/internal/inventory"
	"github.com/notebookd/notebookd/internal/upstream"
	"github.com/notebookd/notebookd/internal/upstream/coreshub"
	"github.com/notebookd/notebookd/internal/upstream/scnet"
)

// kinds names every kind of cloud. To add one, add its line. The budget is the
// quota that the cloud documents; an empty one means that it documents none.
var kinds = map[string]kind{
	"coreshub": kindOf(coreshub.New, upstream.BudgetConfig{CallsPerHour: 2000, Burst: 200}),
	"scnet":    kindOf(scnet.New, upstream.BudgetConfig{}),
}

// settings is the section of a kind in the configuration. Validate returns all
// problems joined; the text of each begins with its key and ": ".
type settings interface{ Validate() error }

// kind makes the providers of one kind of cloud.
type kind struct {
	settings func() settings
	provider func(settings, *upstream.Client) (upstream.Provider, error)
	budget   upstream.BudgetConfig
}

// kindOf makes a kind of a cloud package's constructor.
func kindOf[C settings, P upstream.Provider](create func(C, *upstream.Client) (P, error), budget upstream.BudgetConfig) kind {
	return kind{
		settings: func() settings { return any(new(C)).(settings) },
		provider: func(s settings, client *upstream.Client) (upstream.Provider, error) {
			return create(*any(s).(*C), client)
		},
		budget: budget,
	}
}

// makeSources builds what the inventory polls. A cloud that was there goes on with its
// client, which knows what was spent, once configure was called, and with its
// provider, which may have logged in, unless that has other settings. before is nil
// when nothing was there. Closing the clients is the caller's.
func makeSources(cfg, before *config, have []inventory.Source, metrics *upstream.Metrics, log *slog.Logger) (out []inventory.Source, configure []func(), err error) {
	var made []*upstream.Client
	defer func() {
		if err != nil {
			for _, client := range made {
				client.Close()
			}
		}
	}()
	for _, cloud := range cfg.Clouds {
		kind := kinds[cloud.Kind]
		budget := kind.budget
		if b := cloud.Budget; b != nil {
			budget = upstream.BudgetConfig{CallsPerHour: b.CallsPerHour, Burst: b.Burst, WriteShare: b.WriteShare}
		}
		source := inventory.Source{Name: cloud.Name, Kind: cloud.Kind, Poll: inventory.PollConfig(cloud.Poll)}
		breaker := upstream.BreakerConfig(cloud.Breaker)
		if was := slices.IndexFunc(have, func(s inventory.Source) bool { return s.Name == cloud.Name && s.Kind == cloud.Kind }); was >= 0 {
			source.Client = have[was].Client
			configure = append(configure, func() { source.Client.Configure(cloud.Timeout, breaker, budget) })
			if old := before.cloud(cloud.Name); old != nil && reflect.DeepEqual(old.settings, cloud.settings) {
				source.Provider = have[was].Provider
			}
		} else {
			source.Client = upstream.NewClient(upstream.ClientConfig{
				Cloud: cloud.Name, Timeout: cloud.Timeout, Breaker: breaker, Budget: budget, Logger: log, Metrics: metrics,
			})
			made = append(made, source.Client)
		}
		if source.Provider == nil {
			if source.Provider, err = kind.provider(cloud.settings, source.Client); err != nil {
				return nil, nil, fmt.Errorf("cloud %s: %w", cloud.Name, err)
			}
		}
		out = append(out, source)
	}
	return out, configure, nil
}
