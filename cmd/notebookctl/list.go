package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"io"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/notebookd/notebookd/client"
	"github.com/notebookd/notebookd/cmd/notebookctl/internal/table"
	notebookv1 "github.com/notebookd/notebookd/gen/notebook/v1"
)

// listFlags are the flags of list and watch.
type listFlags struct {
	filter, orderBy string
	limit           int
	maxStaleness    time.Duration
	staleness       bool // whether maxStaleness was given
	output          string
	noHeaders       bool
	watch           bool
	span            time.Duration
}

func (a *app) listCommand() *cobra.Command {
	f := &listFlags{}
	cmd := &cobra.Command{
		Use: "list [PARENT]", Aliases: []string{"ls"}, DisableFlagsInUseLine: true,
		Short: a.l.T("List notebooks."),
		Long: a.l.T("List notebooks: all, or those of a cloud (core) or location (core/xb3). The list is complete, however long it is.\n\n" +
			"Locations that cannot be reached or were last read long ago are named on standard error, and the exit code is 3 when one cannot be reached."),
		Example: strings.Join([]string{
			"notebookctl list",
			"notebookctl list core/xb3 -o wide",
			"notebookctl list --filter 'state = RUNNING AND resources.accelerator.count >= 2' --order-by 'create_time desc'",
			"notebookctl list --filter pytorch -o name",
			"notebookctl list --max-staleness 0s",
		}, "\n"),
		Args: a.atMost(0, 1), ValidArgsFunction: a.completeParents,
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		f.staleness = cmd.Flags().Changed("max-staleness")
		return a.list(cmd.Context(), append(args, "")[0], f)
	}
	a.listFlags(cmd, f)
	cmd.Flags().StringVar(&f.orderBy, "order-by", "", a.l.T("`fields` to order by: name, display_name, state, create_time, update_time, expire_time, each with or without desc"))
	a.completeFlag(cmd, "order-by", fixed("name", "display_name", "state", "create_time", "update_time", "expire_time"))
	cmd.Flags().IntVar(&f.limit, "limit", 0, a.l.T("most `notebooks` to list; 0: all"))
	cmd.Flags().DurationVar(&f.maxStaleness, "max-staleness", 0, a.l.T("read the clouds first where what is known is older than this `time`; 0s: always"))
	cmd.Flags().BoolVarP(&f.watch, "watch", "w", false, a.l.T("go on and tell every change"))
	return cmd
}

func (a *app) watchCommand() *cobra.Command {
	f := &listFlags{watch: true}
	cmd := &cobra.Command{
		Use: "watch [PARENT]", DisableFlagsInUseLine: true,
		Short: a.l.T("List notebooks and tell every change, like list -w."),
		Long: a.l.T("List notebooks, and tell every change of them, a line each, until ctrl-C or --for. When the connection breaks it is made again, and no change is missed.\n\n" +
			"What becomes of locations, image changes and the connection is told on standard error."),
		Example: strings.Join([]string{
			"notebookctl watch",
			"notebookctl watch core --filter 'state = RUNNING'",
			"notebookctl watch -o json --for 1m",
		}, "\n"),
		Args: a.atMost(0, 1), ValidArgsFunction: a.completeParents,
		RunE: func(cmd *cobra.Command, args []string) error { return a.list(cmd.Context(), append(args, "")[0], f) },
	}
	a.listFlags(cmd, f)
	return cmd
}

func (a *app) listFlags(cmd *cobra.Command, f *listFlags) {
	cmd.Flags().SortFlags = false
	cmd.Flags().StringVarP(&f.filter, "filter", "f", "", a.l.T("`filter` of AIP-160, such as state = RUNNING"))
	a.completeFlag(cmd, "filter", a.completeFilter(notebookFields))
	a.outputFlag(cmd, &f.output, asTable, asWide, asJSON, asYAML, asName)
	cmd.Flags().BoolVar(&f.noHeaders, "no-headers", false, a.l.T("leave the titles of the table out"))
	a.spanFlag(cmd, &f.span)
}

// spanFlag adds the flag that ends what would go on.
func (a *app) spanFlag(cmd *cobra.Command, span *time.Duration) {
	cmd.Flags().DurationVar(span, "for", 0, a.l.T("end a watch after this `time`; 0s: never"))
}

var parentForm = regexp.MustCompile(`^$|^clouds/(-|[a-z][a-z0-9-]{0,62})(/locations/(-|[A-Za-z0-9][A-Za-z0-9._-]{0,62}))?$`)

// parent returns the name of the cloud or location that a person names.
func (a *app) parent(text string) (string, error) {
	name := parentOf(text)
	if !parentForm.MatchString(name) {
		return "", usagef(a.l.T("%q is no cloud or location: they are CLOUD or CLOUD/LOCATION, as `notebookctl clouds` shows them", text))
	}
	return name, nil
}

// parentOf completes what a person types for a cloud or location to its name.
func parentOf(text string) string {
	text = strings.Trim(text, "/")
	if text == "" || strings.HasPrefix(text, "clouds/") {
		return text
	}
	cloud, location, found := strings.Cut(text, "/")
	if !found {
		return "clouds/" + cloud
	}
	return "clouds/" + cloud + "/locations/" + strings.TrimPrefix(location, "locations/")
}

const maxPage = 1000 // the most that the server gives at once

func (a *app) list(ctx context.Context, parent string, f *listFlags) error {
	switch {
	case f.limit < 0:
		return usagef(a.l.T("--limit is not negative"))
	case f.maxStaleness < 0:
		return usagef(a.l.T("--max-staleness is not negative"))
	case f.watch && f.limit > 0:
		return usagef(a.l.T("--watch tells of all that match: it takes no --limit"))
	case f.span < 0 || f.span > 0 && !f.watch:
		return usagef(a.l.T("--for belongs to --watch, and is not negative"))
	}
	parent, err := a.parent(parent)
	if err != nil {
		return err
	}
	req := &notebookv1.ListRequest{Parent: parent, Filter: f.filter, OrderBy: f.orderBy}
	if f.staleness {
		req.MaxStaleness = durationpb.New(f.maxStaleness)
	}
	ctx, cancel := bounded(ctx, f.span) // from here on, so that a server that hangs is within it
	defer cancel()
	out := bufio.NewWriterSize(a.stdout, 1<<16)
	listing := a.newListing(out, f)
	state := client.State{Notebooks: map[string]*notebookv1.Notebook{}}
	whole, err := a.pages(ctx, req, f.limit, func(page *notebookv1.ListResponse) error {
		state.Token = cmp.Or(state.Token, page.GetResumeToken()) // that of the first page misses nothing
		for _, n := range page.GetNotebooks() {
			if f.watch {
				state.Notebooks[n.GetName()] = n
			}
			if err := listing.add(n); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		if f.span > 0 && errors.Is(context.Cause(ctx), errSpan) {
			return nil
		}
		_ = out.Flush() // the rest is missing, and the error says so
		return withFilter(err, f.filter)
	}
	if err := listing.end(whole, state.Token); err != nil {
		return err
	}
	if err := out.Flush(); err != nil {
		return err
	}
	partial := a.tellFreshness(whole)
	if f.watch {
		if err := a.follow(ctx, req.GetParent(), f, state, listing); err != nil {
			return withFilter(err, f.filter)
		}
	}
	if partial {
		return errPartial
	}
	return nil
}

// pages asks for all pages, as far as limit (0: all), and returns what is to be said
// of them as a whole.
func (a *app) pages(ctx context.Context, req *notebookv1.ListRequest, limit int, each func(*notebookv1.ListResponse) error) (*notebookv1.ListResponse, error) {
	s, err := a.services()
	if err != nil {
		return nil, err
	}
	whole := &notebookv1.ListResponse{}
	freshness := map[string]*notebookv1.Freshness{}
	for count := 0; ; {
		req.PageSize = maxPage
		if limit > 0 {
			req.PageSize = int32(min(maxPage, limit-count))
		}
		page, err := func() (*notebookv1.ListResponse, error) {
			ctx, cancel := a.call(ctx)
			defer cancel()
			return s.notebooks.List(ctx, req)
		}()
		if err != nil {
			return nil, err
		}
		if err := each(page); err != nil {
			return nil, err
		}
		count += len(page.GetNotebooks())
		whole.TotalSize = page.GetTotalSize()
		for _, name := range page.GetUnreachable() {
			if !slices.Contains(whole.GetUnreachable(), name) {
				whole.Unreachable = append(whole.Unreachable, name)
			}
		}
		for _, fresh := range page.GetFreshness() {
			freshness[fresh.GetLocation()] = fresh
		}
		req.PageToken, req.MaxStaleness = page.GetNextPageToken(), nil
		if req.GetPageToken() == "" || limit > 0 && count >= limit {
			break
		}
	}
	for _, fresh := range freshness {
		whole.Freshness = append(whole.Freshness, fresh)
	}
	slices.SortFunc(whole.GetFreshness(), func(x, y *notebookv1.Freshness) int { return strings.Compare(x.GetLocation(), y.GetLocation()) })
	slices.Sort(whole.GetUnreachable())
	return whole, nil
}

// tellFreshness tells what may be old, and reports whether something cannot be
// reached.
func (a *app) tellFreshness(whole *notebookv1.ListResponse) bool {
	unreachable := map[string]bool{}
	for _, name := range whole.GetUnreachable() {
		unreachable[name] = true
		i := slices.IndexFunc(whole.GetFreshness(), func(f *notebookv1.Freshness) bool { return f.GetLocation() == name })
		switch {
		case strings.Count(name, "/") == 1:
			a.say("%s", a.l.T("warning: %s cannot be reached as a whole", name))
		case i < 0 || whole.GetFreshness()[i].GetObserveTime() == nil:
			a.say("%s", a.l.T("warning: %s cannot be reached; nothing is known of it yet", name))
		default:
			a.say("%s", a.l.T("warning: %s cannot be reached; what is shown of it was read %s ago", name,
				a.l.Span(a.now().Sub(whole.GetFreshness()[i].GetObserveTime().AsTime()))))
		}
	}
	for _, f := range whole.GetFreshness() {
		// One that was never read and is no outage is not enabled for the account.
		if f.GetStale() && f.GetObserveTime() != nil && !unreachable[f.GetLocation()] {
			a.say("%s", a.l.T("note: what is shown of %s is old: it was read %s ago", f.GetLocation(), a.l.Span(a.now().Sub(f.GetObserveTime().AsTime()))))
		}
	}
	return len(unreachable) > 0
}

// listing writes notebooks in the form that was asked for.
type listing struct {
	a    *app
	out  *bufio.Writer
	f    *listFlags
	rows *table.Table
	seq  *sequence
	n    int
}

func (a *app) newListing(out *bufio.Writer, f *listFlags) *listing {
	return &listing{a: a, out: out, f: f, rows: a.notebookTable(f.output == asWide, f.noHeaders), seq: &sequence{w: out, form: f.output, field: "notebooks"}}
}

// notebookTable makes the table of notebooks.
func (a *app) notebookTable(wide, noHeaders bool) *table.Table {
	t := a.l.T
	rows := &table.Table{NoHeader: noHeaders, Columns: []table.Column{
		{Title: t("LOCATION"), Drop: 1},
		{Title: "ID"},
		{Title: t("NAME"), Min: 12, Drop: 2},
		{Title: t("STATE")},
		{Title: t("IMAGE"), Min: 20, Drop: 3, KeepEnd: true},
		{Title: t("CARDS"), Min: 10, Drop: 5},
		{Title: t("AGE"), Drop: 6},
		{Title: t("EXPIRES"), Drop: 4},
	}}
	if wide {
		rows.Columns = append(rows.Columns,
			table.Column{Title: t("SERVER TYPE"), Drop: 8}, table.Column{Title: "CPU", Drop: 9}, table.Column{Title: t("MEMORY"), Drop: 10},
			table.Column{Title: t("IMAGE TYPE"), Drop: 11}, table.Column{Title: t("OWNER"), Min: 8, Drop: 12}, table.Column{Title: t("MESSAGE"), Min: 12, Drop: 13})
	}
	return rows
}

func (a *app) notebookRow(n *notebookv1.Notebook, wide bool) []table.Cell {
	name := n.GetName()
	row := []table.Cell{
		table.Text(cloudOf(name) + "/" + locationOf(name)), table.Text(idOf(name)), table.Text(n.GetDisplayName()), a.stateCell(n.GetState()),
		table.Text(n.GetImage().GetUri()), table.Text(cards(n.GetResources())), table.Text(a.ago(n.GetCreateTime())), table.Text(a.until(n.GetExpireTime())),
	}
	if wide {
		row = append(row, table.Text(n.GetServerType()), table.Text(number(n.GetResources().GetCpuCores())), table.Text(size(n.GetResources().GetMemoryBytes())),
			table.Text(n.GetImage().GetType()), table.Text(n.GetOwnerId()), table.Text(n.GetStateMessage()))
	}
	return row
}

// add takes a notebook.
func (w *listing) add(n *notebookv1.Notebook) error {
	w.n++
	switch {
	case isTable(w.f.output):
		w.rows.Add(w.a.notebookRow(n, w.f.output == asWide)...)
		return nil
	case w.f.output == asName:
		_, err := io.WriteString(w.out, n.GetName()+"\n")
		return err
	case w.f.watch:
		return writeEvent(w.out, w.f.output, &notebookv1.WatchResponse{Event: &notebookv1.WatchResponse_Notebook{Notebook: &notebookv1.NotebookEvent{
			Type: notebookv1.NotebookEvent_TYPE_ADDED, Notebook: n, Initial: true,
		}}})
	default:
		return w.seq.add(n)
	}
}

// end says that there are no more. token continues after them.
func (w *listing) end(whole *notebookv1.ListResponse, token string) error {
	switch {
	case isTable(w.f.output):
		if w.n == 0 {
			w.a.say("%s", w.a.l.T("No notebook matches."))
			return nil
		}
		return w.rows.Write(w.out, w.a.width(), w.a.colours())
	case w.f.output == asName:
		return nil
	case w.f.watch:
		return writeEvent(w.out, w.f.output, &notebookv1.WatchResponse{ResumeToken: token, Event: &notebookv1.WatchResponse_Bookmark{
			Bookmark: &notebookv1.Bookmark{Kind: notebookv1.Bookmark_KIND_SNAPSHOT_END},
		}})
	default:
		return w.seq.end(whole)
	}
}
