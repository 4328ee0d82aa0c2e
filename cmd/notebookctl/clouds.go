package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	"github.com/notebookd/notebookd/cmd/notebookctl/internal/table"
	notebookv1 "github.com/notebookd/notebookd/gen/notebook/v1"
)

// pollEvery is how often what the API has no watch for is asked for again. Such calls
// reach no cloud.
const pollEvery = 2 * time.Second

func (a *app) cloudsCommand() *cobra.Command {
	var output string
	var watch bool
	var span time.Duration
	cmd := &cobra.Command{
		Use: "clouds [CLOUD[/LOCATION]]", Aliases: []string{"cloud"}, DisableFlagsInUseLine: true,
		Short: a.l.T("Show how the clouds and their locations do."),
		Long: a.l.T("Show how the clouds and their locations do: whether they can be reached, how old what is known of them is, when they are read next, " +
			"circuit breakers, call budgets and free accelerators. It calls no cloud."),
		Example: strings.Join([]string{"notebookctl clouds", "notebookctl clouds core", "notebookctl clouds scnet/11250", "notebookctl clouds -w"}, "\n"),
		Args:    a.atMost(0, 1), ValidArgsFunction: a.completeParents,
		RunE: func(cmd *cobra.Command, args []string) error {
			if span < 0 || span > 0 && !watch {
				return usagef(a.l.T("--for belongs to --watch, and is not negative"))
			}
			parent, err := a.parent(append(args, "")[0])
			if err != nil {
				return err
			}
			return a.clouds(cmd.Context(), parent, output, watch, span)
		},
	}
	cmd.Flags().SortFlags = false
	a.outputFlag(cmd, &output, asTable, asWide, asJSON, asYAML, asName)
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, a.l.T("go on and tell every change"))
	a.spanFlag(cmd, &span)
	return cmd
}

func (a *app) clouds(ctx context.Context, parent, output string, watch bool, span time.Duration) error {
	clouds, err := a.readClouds(ctx, parent)
	if err != nil {
		return err
	}
	switch {
	case isTable(output) && parent == "":
		err = a.cloudTable(clouds, output == asWide).Write(a.stdout, a.width(), a.colours())
	case isTable(output):
		err = a.showCloud(clouds[0], locationOf(parent) != "")
	case output == asName:
		for _, name := range locationNames(clouds) {
			_, err = fmt.Fprintln(a.stdout, name)
		}
	case parent == "" && !watch:
		err = writeMessage(a.stdout, output, &notebookv1.ListCloudsResponse{Clouds: clouds})
	default:
		for _, c := range clouds {
			if watch {
				err = errors.Join(err, writeEvent(a.stdout, output, cloudOrLocation(c, parent)))
			} else {
				err = errors.Join(err, writeMessage(a.stdout, output, cloudOrLocation(c, parent)))
			}
		}
	}
	if err != nil || !watch {
		return err
	}
	return a.followClouds(ctx, parent, output, clouds, span)
}

// cloudOrLocation is what was asked for.
func cloudOrLocation(c *notebookv1.Cloud, parent string) proto.Message {
	if locationOf(parent) != "" && len(c.GetLocations()) == 1 {
		return c.GetLocations()[0]
	}
	return c
}

// readClouds asks for the clouds, or one, or one that is cut to one location.
func (a *app) readClouds(ctx context.Context, parent string) ([]*notebookv1.Cloud, error) {
	s, err := a.services()
	if err != nil {
		return nil, err
	}
	ctx, cancel := a.call(ctx)
	defer cancel()
	if parent == "" {
		answer, err := s.clouds.ListClouds(ctx, &notebookv1.ListCloudsRequest{})
		return answer.GetClouds(), err
	}
	answer, err := s.clouds.GetCloud(ctx, &notebookv1.GetCloudRequest{Name: "clouds/" + cloudOf(parent)})
	if err != nil {
		return nil, err
	}
	c := answer.GetCloud()
	if locationOf(parent) != "" {
		all := c.GetLocations()
		c.Locations = slices.DeleteFunc(slices.Clone(all), func(l *notebookv1.Location) bool { return l.GetName() != parent })
		if len(c.GetLocations()) == 0 {
			names := make([]string, 0, len(all))
			for _, l := range all {
				names = append(names, locationOf(l.GetName()))
			}
			return nil, errors.New(a.l.T("%s has no location %q; it has %s", c.GetName(), locationOf(parent), cmp.Or(a.l.Join(names), "-")))
		}
	}
	return []*notebookv1.Cloud{c}, nil
}

func locationNames(clouds []*notebookv1.Cloud) []string {
	var names []string
	for _, c := range clouds {
		if len(c.GetLocations()) == 0 {
			names = append(names, c.GetName())
		}
		for _, l := range c.GetLocations() {
			names = append(names, l.GetName())
		}
	}
	return names
}

// cloudTable is a line for each location.
func (a *app) cloudTable(clouds []*notebookv1.Cloud, wide bool) *table.Table {
	t := a.l.T
	rows := &table.Table{Columns: []table.Column{
		{Title: t("LOCATION")}, {Title: t("NAME"), Min: 8, Drop: 6}, {Title: t("STATE")}, {Title: t("READ"), Drop: 1}, {Title: t("NEXT"), Drop: 7},
		{Title: t("NOTEBOOKS"), Drop: 4}, {Title: t("FREE CARDS"), Min: 10, Drop: 5}, {Title: t("BREAKERS"), Min: 8, Drop: 3}, {Title: t("BUDGET"), Drop: 8},
		{Title: t("REASON"), Min: 16, Drop: 2},
	}}
	if wide {
		rows.Columns = append(rows.Columns, table.Column{Title: t("KIND"), Drop: 9}, table.Column{Title: t("INTERVAL"), Drop: 10}, table.Column{Title: t("CLOUD'S CODE"), Drop: 11})
	}
	for _, c := range clouds {
		locations := c.GetLocations()
		if len(locations) == 0 { // its login or discovery fails
			locations = []*notebookv1.Location{{Name: c.GetName(), State: notebookv1.Location_STATE_UNREACHABLE, Reason: c.GetReason()}}
		}
		for _, l := range locations {
			next := ""
			if l.GetNextAttemptTime() != nil {
				next = words0(a.until(l.GetNextAttemptTime()))
			}
			why := ""
			if l.GetState() != notebookv1.Location_STATE_LIVE {
				why = a.locationReason(l.GetReason(), l.GetMessage())
			}
			row := []table.Cell{
				table.Text(short(l.GetName())), table.Text(l.GetDisplayName()), a.locationCell(l.GetState()),
				table.Text(a.ago(l.GetLastSuccessTime())), table.Text(next), table.Text(fmt.Sprint(l.GetNotebookCount())), table.Text(a.freeCards(l)),
				a.breakersCell(l), table.Text(budget(c)), table.Text(why),
			}
			if wide {
				interval := ""
				if l.GetPollInterval() != nil {
					interval = l.GetPollInterval().AsDuration().Round(time.Second).String()
				}
				row = append(row, table.Text(c.GetKind()), table.Text(interval), table.Text(l.GetCloudCode()))
			}
			rows.Add(row...)
		}
	}
	return rows
}

// words0 is the time to something that is due: what is over is due now.
func words0(age string) string {
	if strings.HasPrefix(age, "-") {
		return "0s"
	}
	return age
}

// freeCards sums up what is free, by kind of card. Groups that count the same cards
// for several kinds are counted for each.
func (a *app) freeCards(l *notebookv1.Location) string {
	sum, kinds := map[string]int32{}, []string{}
	for _, g := range l.GetResourceGroups() {
		if _, ok := sum[g.GetAccelerator()]; !ok {
			kinds = append(kinds, g.GetAccelerator())
		}
		sum[g.GetAccelerator()] += g.GetFree()
	}
	parts := make([]string, 0, len(kinds))
	for _, kind := range kinds {
		parts = append(parts, fmt.Sprintf("%d %s", sum[kind], kind))
	}
	return a.l.Join(parts)
}

func budget(c *notebookv1.Cloud) string {
	if c.GetBudget() == nil {
		return ""
	}
	if c.GetBudget().GetCallsPerHour() == 0 {
		return "∞"
	}
	return fmt.Sprintf("%d, %d/h", c.GetBudget().GetRemaining(), c.GetBudget().GetCallsPerHour())
}

// breakersCell says which circuit breakers are not closed.
func (a *app) breakersCell(l *notebookv1.Location) table.Cell {
	var open []string
	for _, b := range l.GetBreakers() {
		if b.GetState() == notebookv1.Breaker_STATE_CLOSED {
			continue
		}
		operation, state := a.l.Breaker(b)
		text := operation + " " + state
		if b.GetOpenUntil() != nil {
			text += " " + words0(a.until(b.GetOpenUntil()))
		}
		if !slices.Contains(open, text) {
			open = append(open, text)
		}
	}
	if len(open) == 0 {
		if len(l.GetBreakers()) == 0 {
			return table.Text("")
		}
		return table.Text(a.l.T("closed"))
	}
	return table.Cell{Text: a.l.Join(open), Style: table.Red}
}

// showCloud shows all of a cloud, or of one location of it.
func (a *app) showCloud(c *notebookv1.Cloud, one bool) error {
	t := a.l.T
	f := &table.Fields{}
	if !one {
		f.Add(t("Cloud"), table.Text(c.GetName()))
		f.Add(t("Kind"), table.Text(c.GetKind()))
		for i, can := range c.GetCapabilities() {
			name := ""
			if i == 0 {
				name = t("It can")
			}
			f.Add(name, table.Text(a.l.Capability(can)))
		}
		if b := c.GetBudget(); b != nil {
			if b.GetCallsPerHour() == 0 {
				f.Add(t("Call budget"), table.Text(t("unlimited")))
			} else {
				f.Add(t("Call budget"), table.Text(t("%d calls an hour, %d could be made now", b.GetCallsPerHour(), b.GetRemaining())))
			}
		}
		if c.GetReason() != notebookv1.ErrorReason_ERROR_REASON_UNSPECIFIED {
			means, _ := a.l.Reason(c.GetReason())
			f.Add(t("Cannot be used"), table.Cell{Text: means, Style: table.Red})
		}
	}
	for _, l := range c.GetLocations() {
		if !one {
			f.Section("")
		}
		f.Add(t("Location"), table.Text(l.GetName()))
		sub := f.Add
		if !one {
			sub = f.Sub
		}
		sub(t("Display name"), table.Text(l.GetDisplayName()))
		sub(t("State"), a.locationCell(l.GetState()))
		if l.GetState() != notebookv1.Location_STATE_LIVE {
			sub(t("Reason"), table.Text(a.locationReason(l.GetReason(), l.GetMessage())))
			sub(t("The cloud's code"), table.Text(l.GetCloudCode()))
			if _, do := a.l.Reason(l.GetReason()); do != "" {
				sub(t("What to do"), table.Text(do))
			}
		}
		sub(t("Last read"), table.Text(a.when(l.GetLastSuccessTime())))
		sub(t("Last tried"), table.Text(a.when(l.GetLastAttemptTime())))
		if l.GetNextAttemptTime() != nil {
			sub(t("Read next"), table.Text(a.when(l.GetNextAttemptTime())))
		}
		if l.GetPollInterval() != nil {
			sub(t("Poll interval"), table.Text(l.GetPollInterval().AsDuration().Round(time.Second).String()))
		}
		sub(t("Notebooks"), table.Text(fmt.Sprint(l.GetNotebookCount())))
		for i, b := range l.GetBreakers() {
			if i > 0 && proto.Equal(b, l.GetBreakers()[i-1]) {
				continue // of several logins of the same kind
			}
			operation, state := a.l.Breaker(b)
			cell := table.Text(operation + a.l.Pick(": ", "：") + state)
			if b.GetOpenUntil() != nil {
				cell.Text += a.l.Pick(", ", "，") + t("next call %s", a.when(b.GetOpenUntil()))
			}
			if b.GetState() != notebookv1.Breaker_STATE_CLOSED {
				cell.Style = table.Red
			}
			sub(t("Circuit breaker"), cell)
		}
		for _, g := range l.GetResourceGroups() {
			sub(t("Free cards"), table.Text(t("%d %s in %s, at most %d for a notebook", g.GetFree(), g.GetAccelerator(), cmp.Or(g.GetCode(), g.GetId()), g.GetMax())))
		}
	}
	return f.Write(a.stdout, a.width(), a.colours())
}

// followClouds tells what becomes of the clouds.
func (a *app) followClouds(ctx context.Context, parent, output string, before []*notebookv1.Cloud, span time.Duration) error {
	return a.poll(ctx, span, func(ctx context.Context) (bool, error) {
		now, err := a.readClouds(ctx, parent)
		if err != nil {
			return false, err
		}
		if err := a.tellClouds(output, parent, before, now); err != nil {
			return false, err
		}
		before = now
		return false, nil
	})
}

// tellClouds tells how the clouds differ from what was told before: the times of
// polls and what is left of a budget are no news to people.
func (a *app) tellClouds(output, parent string, before, now []*notebookv1.Cloud) error {
	type known struct {
		location *notebookv1.Location
		news     string
	}
	news := func(l *notebookv1.Location) string {
		return fmt.Sprint(l.GetState(), l.GetReason(), l.GetCloudCode(), breakerStates(l), l.GetNotebookCount(), a.freeCards(l))
	}
	old := map[string]known{}
	for _, c := range before {
		for _, l := range c.GetLocations() {
			old[l.GetName()] = known{l, news(l)}
		}
	}
	for _, c := range now {
		told := false
		for _, l := range c.GetLocations() {
			was, ok := old[l.GetName()]
			delete(old, l.GetName())
			if ok && was.news == news(l) {
				continue
			}
			if !isTable(output) {
				if !told {
					if err := a.tellCloudEvent(output, cloudOrLocation(c, parent)); err != nil {
						return err
					}
				}
				told = true
				continue
			}
			if _, err := fmt.Fprintf(a.stdout, "%s  %s\n", a.clock(), a.locationLine(was.location, l)); err != nil {
				return err
			}
		}
	}
	for name := range old {
		if isTable(output) {
			if _, err := fmt.Fprintln(a.stdout, a.l.T("%s  location %s is gone from the server", a.clock(), name)); err != nil {
				return err
			}
		}
	}
	return nil
}

func (a *app) tellCloudEvent(output string, m proto.Message) error {
	if output == asName {
		_, err := fmt.Fprintln(a.stdout, m.(interface{ GetName() string }).GetName())
		return err
	}
	return writeEvent(a.stdout, output, m)
}

func breakerStates(l *notebookv1.Location) string {
	var states []string
	for _, b := range l.GetBreakers() {
		states = append(states, b.GetOperation().String()+b.GetState().String())
	}
	return strings.Join(states, " ")
}

// locationLine says what is another in a location.
func (a *app) locationLine(was, is *notebookv1.Location) string {
	parts := []string{}
	add := func(name, from, to string) {
		if from != to {
			parts = append(parts, fmt.Sprintf("%s: %s → %s", name, cmp.Or(from, "-"), cmp.Or(to, "-")))
		}
	}
	add(a.l.T("state"), a.l.LocationState(was.GetState()), a.l.LocationState(is.GetState()))
	if breakerStates(was) != breakerStates(is) {
		parts = append(parts, a.l.T("breakers: %s", cmp.Or(a.breakersCell(is).Text, "-")))
	}
	add(a.l.T("notebooks"), fmt.Sprint(was.GetNotebookCount()), fmt.Sprint(is.GetNotebookCount()))
	add(a.l.T("free cards"), a.freeCards(was), a.freeCards(is))
	if is.GetState() != notebookv1.Location_STATE_LIVE {
		if why := a.locationReason(is.GetReason(), is.GetMessage()); why != "" {
			parts = append(parts, why)
		}
	}
	return table.Fit(short(is.GetName())+"  "+table.Clean(strings.Join(parts, a.l.Pick("; ", "；"))), max(0, a.width()-10))
}

// poll calls something every pollEvery, until it says that it is done, ctx ends or
// span is over. A server that cannot be reached for a while is told once, and asked
// again.
func (a *app) poll(ctx context.Context, span time.Duration, again func(ctx context.Context) (done bool, err error)) error {
	return a.pollEvery(ctx, pollEvery, span, again)
}

// pollEvery is poll with another time between two calls.
func (a *app) pollEvery(ctx context.Context, every, span time.Duration, again func(ctx context.Context) (done bool, err error)) error {
	ctx, cancel := bounded(ctx, span)
	defer cancel()
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	broken := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		done, err := again(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil && broken:
			broken = false
			a.say("%s", a.l.T("%s  connected again", a.clock()))
		case err != nil && !passes(err):
			return err
		case err != nil && !broken:
			broken = true
			lines, _ := a.explain(problemOf(err), err)
			a.say("%s", a.l.T("%s  the connection is interrupted: %s It is tried again.", a.clock(), lines[0]))
		}
		if done {
			return nil
		}
	}
}
