package main

import (
	"fmt"
	"log/slog"

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

// sources builds what the inventory polls. Closing the clients is the caller's.
func sources(cfg *config, metrics *upstream.Metrics, log *slog.Logger) ([]inventory.Source, error) {
	var out []inventory.Source
	for _, cloud := range cfg.Clouds {
		kind := kinds[cloud.Kind]
		budget := kind.budget
		if b := cloud.Budget; b != nil {
			budget = upstream.BudgetConfig{CallsPerHour: b.CallsPerHour, Burst: b.Burst, WriteShare: b.WriteShare}
		}
		client := upstream.NewClient(upstream.ClientConfig{
			Cloud: cloud.Name, Timeout: cloud.Timeout, Breaker: upstream.BreakerConfig(cloud.Breaker),
			Budget: budget, Logger: log, Metrics: metrics,
		})
		provider, err := kind.provider(cloud.settings, client)
		if err != nil {
			return nil, fmt.Errorf("cloud %s: %w", cloud.Name, err)
		}
		out = append(out, inventory.Source{
			Name: cloud.Name, Kind: cloud.Kind, Provider: provider, Client: client, Poll: inventory.PollConfig(cloud.Poll),
		})
	}
	return out, nil
}
