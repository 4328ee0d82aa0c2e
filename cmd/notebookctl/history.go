package main

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/notebookd/notebookd/cmd/notebookctl/internal/table"
	"github.com/notebookd/notebookd/cmd/notebookctl/internal/words"
	notebookv1 "github.com/notebookd/notebookd/gen/notebook/v1"
)

// historyFlags are the flags of history.
type historyFlags struct {
	filter    string
	limit     int
	output    string
	noHeaders bool
	watch     bool
	span      time.Duration
}

func (a *app) historyCommand() *cobra.Command {
	f := &historyFlags{}
	cmd := &cobra.Command{
		Use: "history [NOTEBOOK|CHANGE]", DisableFlagsInUseLine: true,
		Short: a.l.T("Show image changes: who changed what, when, why, and what became of it."),
		Long: a.l.T("Show image changes, newest first: all, those of a notebook, or all of one change (imageChanges/…). They are kept for 90 days.\n\n" +
			"With -w, one change is followed until it has ended, and the exit code is 1 unless it succeeded."),
		Example: strings.Join([]string{
			"notebookctl history",
			"notebookctl history core/xb3/nb-eiguqichl5hc --limit 5",
			"notebookctl history --filter 'phase = FAILED'",
			"notebookctl history imageChanges/ID -w",
		}, "\n"),
		Args: a.atMost(0, 1), ValidArgsFunction: a.completeHistory,
		RunE: func(cmd *cobra.Command, args []string) error { return a.history(cmd.Context(), append(args, "")[0], f) },
	}
	cmd.Flags().SortFlags = false
	cmd.Flags().StringVarP(&f.filter, "filter", "f", "", a.l.T("`filter` of AIP-160, such as phase = FAILED"))
	a.completeFlag(cmd, "filter", a.completeFilter(changeFields))
	cmd.Flags().IntVar(&f.limit, "limit", 50, a.l.T("most `changes` to show; 0: all"))
	a.outputFlag(cmd, &f.output, asTable, asWide, asJSON, asYAML, asName)
	cmd.Flags().BoolVar(&f.noHeaders, "no-headers", false, a.l.T("leave the titles of the table out"))
	cmd.Flags().BoolVarP(&f.watch, "watch", "w", false, a.l.T("go on and tell every change"))
	a.spanFlag(cmd, &f.span)
	return cmd
}

const changePrefix = "imageChanges/"

// newest is how many changes a watch looks at: those that go on are among them.
const newest = 50

// changeEvery is how often a change is asked for that somebody waits for.
const changeEvery = 500 * time.Millisecond

func (a *app) history(ctx context.Context, what string, f *historyFlags) error {
	switch {
	case f.limit < 0:
		return usagef(a.l.T("--limit is not negative"))
	case f.span < 0 || f.span > 0 && !f.watch:
		return usagef(a.l.T("--for belongs to --watch, and is not negative"))
	}
	if strings.HasPrefix(what, changePrefix) {
		return a.showChange(ctx, what, f)
	}
	filter, err := a.historyFilter(ctx, what, f.filter)
	if err != nil {
		return err
	}
	limit := f.limit
	if f.watch && limit > 0 {
		limit = max(limit, newest) // those that are not shown are no news later
	}
	changes, err := a.changes(ctx, filter, limit)
	if err != nil {
		return withFilter(err, filter)
	}
	shown := changes
	if f.limit > 0 {
		shown = changes[:min(f.limit, len(changes))]
	}
	if err := a.writeChanges(shown, f); err != nil || !f.watch {
		return err
	}
	return a.followChanges(ctx, filter, changes, f)
}

// historyFilter adds the notebook that a person names to a filter.
func (a *app) historyFilter(ctx context.Context, what, filter string) (string, error) {
	if what == "" {
		return filter, nil
	}
	name := what
	if m := shortForm.FindStringSubmatch(name); m != nil {
		name = "clouds/" + m[1] + "/locations/" + m[2] + "/notebooks/" + m[3]
	}
	if !fullForm.MatchString(name) { // of a full name there is a history even when it is gone
		n, _, err := a.resolve(ctx, what, true)
		if err != nil {
			return "", err
		}
		name = n.GetName()
	}
	own := "(notebook = " + quote(name) + " OR new_notebook = " + quote(name) + ")"
	if strings.TrimSpace(filter) == "" {
		return own, nil
	}
	return "(" + filter + ") AND " + own, nil
}

// changes asks for image changes, newest first, as far as limit (0: all).
func (a *app) changes(ctx context.Context, filter string, limit int) ([]*notebookv1.ImageChange, error) {
	s, err := a.services()
	if err != nil {
		return nil, err
	}
	var all []*notebookv1.ImageChange
	req := &notebookv1.ListImageChangesRequest{Filter: filter}
	for {
		req.PageSize = maxPage
		if limit > 0 {
			req.PageSize = int32(min(maxPage, limit-len(all))) //nolint:gosec // at most 1000
		}
		page, err := func() (*notebookv1.ListImageChangesResponse, error) {
			ctx, cancel := a.call(ctx)
			defer cancel()
			return s.changes.ListImageChanges(ctx, req)
		}()
		if err != nil {
			return nil, err
		}
		all = append(all, page.GetImageChanges()...)
		req.PageToken = page.GetNextPageToken()
		if req.GetPageToken() == "" || limit > 0 && len(all) >= limit {
			return all, nil
		}
	}
}

func (a *app) change(ctx context.Context, name string) (*notebookv1.ImageChange, error) {
	s, err := a.services()
	if err != nil {
		return nil, err
	}
	ctx, cancel := a.call(ctx)
	defer cancel()
	answer, err := s.changes.GetImageChange(ctx, &notebookv1.GetImageChangeRequest{Name: name})
	return answer.GetImageChange(), err
}

func (a *app) writeChanges(changes []*notebookv1.ImageChange, f *historyFlags) error {
	switch {
	case isTable(f.output):
		if len(changes) == 0 {
			a.say("%s", a.l.T("There are no image changes."))
			return nil
		}
		return a.changeTable(changes, f).Write(a.stdout, a.width(), a.colours())
	case f.output == asName:
		for _, c := range changes {
			if _, err := fmt.Fprintln(a.stdout, c.GetName()); err != nil {
				return err
			}
		}
		return nil
	case f.watch:
		for _, c := range changes {
			if err := writeEvent(a.stdout, f.output, c); err != nil {
				return err
			}
		}
		return nil
	}
	seq := &sequence{w: a.stdout, form: f.output, field: "imageChanges"}
	for _, c := range changes {
		if err := seq.add(c); err != nil {
			return err
		}
	}
	return seq.end(&notebookv1.ListImageChangesResponse{})
}

func (a *app) changeTable(changes []*notebookv1.ImageChange, f *historyFlags) *table.Table {
	t := a.l.T
	rows := &table.Table{NoHeader: f.noHeaders, Columns: []table.Column{
		{Title: t("TIME")}, {Title: t("WHO"), Min: 8, Drop: 4}, {Title: t("NOTEBOOK")}, {Title: t("FROM"), Min: 14, Drop: 3, KeepEnd: true},
		{Title: t("TO"), Min: 14, Drop: 1, KeepEnd: true}, {Title: t("RESULT"), Min: 6}, {Title: t("WHY"), Min: 8, Drop: 5}, {Title: t("CHANGE"), Drop: 6},
	}}
	if f.output == asWide {
		rows.Columns = append(rows.Columns, table.Column{Title: t("NEW NOTEBOOK"), Drop: 8}, table.Column{Title: t("FAILURE"), Min: 12, Drop: 7}, table.Column{Title: t("ACCEPTED"), Drop: 9}, table.Column{Title: t("TOOK"), Drop: 10})
	}
	for _, c := range changes {
		row := []table.Cell{
			table.Text(c.GetCreateTime().AsTime().Local().Format("2006-01-02 15:04:05")), table.Text(c.GetPrincipal()), table.Text(short(c.GetNotebook())),
			table.Text(c.GetFromImage()), table.Text(c.GetToImage()), a.phaseCell(c.GetPhase()), table.Text(c.GetReason()), table.Text(c.GetName()),
		}
		if f.output == asWide {
			replaced := ""
			if c.GetNewNotebook() != "" {
				replaced = short(c.GetNewNotebook())
			}
			row = append(row, table.Text(replaced), table.Text(a.failureText(c)), table.Text(strings.Join(c.GetAcknowledged(), ",")),
				table.Text(words.Age(c.GetUpdateTime().AsTime().Sub(c.GetCreateTime().AsTime()))))
		}
		rows.Add(row...)
	}
	return rows
}

// failureText says why a change failed.
func (a *app) failureText(c *notebookv1.ImageChange) string {
	if c.GetFailure() == nil {
		return ""
	}
	means, _ := a.l.Reason(c.GetFailure().GetReason())
	text := a.l.Why(means, c.GetFailure().GetMessage())
	if code := c.GetFailure().GetCloudCode(); code != "" {
		text += a.l.Pick(" (", "（") + a.l.T("the cloud's code") + " " + code + a.l.Pick(")", "）")
	}
	return table.Clean(text)
}

// showChange shows one change and, with -w, how it goes on.
func (a *app) showChange(ctx context.Context, name string, f *historyFlags) error {
	c, err := a.change(ctx, name)
	if err != nil {
		return err
	}
	switch {
	case isTable(f.output):
		err = a.changeFields(c).Write(a.stdout, a.width(), a.colours())
	case f.output == asName:
		_, err = fmt.Fprintln(a.stdout, c.GetName())
	case f.watch:
		err = writeEvent(a.stdout, f.output, c)
	default:
		err = writeMessage(a.stdout, f.output, c)
	}
	if err != nil || !f.watch {
		return err
	}
	if !ended(c.GetPhase()) {
		c, err = a.followChange(ctx, c, f.span, func(c *notebookv1.ImageChange) error { return a.tellPhase(c, f.output) })
		if err != nil {
			return err
		}
	}
	if !ended(c.GetPhase()) { // --for or ctrl-C
		a.tellGoesOn(c.GetName())
		return errTold
	}
	return a.outcome(c)
}

// changeFields is all of a change.
func (a *app) changeFields(c *notebookv1.ImageChange) *table.Fields {
	t := a.l.T
	f := &table.Fields{}
	f.Add(t("Change"), table.Text(c.GetName()))
	f.Add(t("Notebook"), table.Text(c.GetNotebook()))
	f.Add(t("New notebook"), table.Text(c.GetNewNotebook()))
	f.Add(t("From"), table.Text(cmp.Or(c.GetFromImage(), "-")))
	f.Add(t("To"), table.Text(c.GetToImage()))
	f.Add(t("Image type"), table.Text(c.GetImageType()))
	f.Add(t("Result"), a.phaseCell(c.GetPhase()))
	f.Add(t("Failure"), table.Cell{Text: a.failureText(c), Style: table.Red})
	f.Add(t("Who"), table.Text(c.GetPrincipal()))
	f.Add(t("Why"), table.Text(c.GetReason()))
	f.Add(t("Asked"), table.Text(a.when(c.GetCreateTime())))
	f.Add(t("Last step"), table.Text(a.when(c.GetUpdateTime())))
	sent := t("no")
	if c.GetSent() {
		sent = t("yes")
	}
	f.Add(t("Sent to the cloud"), table.Text(sent))
	f.Add(t("Request id"), table.Text(c.GetRequestId()))
	f.Add(t("The cloud's id"), table.Text(c.GetCloudRequestId()))
	f.Add(t("Accepted"), table.Text(a.l.Join(c.GetAcknowledged())))
	for i, step := range c.GetSteps() {
		name := ""
		if i == 0 {
			name = t("Steps")
		}
		f.Add(name, table.Text(fmt.Sprintf("%d. %s", i+1, a.l.Said(step))))
	}
	return f
}

// ended reports whether a change goes on no more. One whose outcome is unknown is
// still being read.
func ended(p notebookv1.ImageChange_Phase) bool {
	switch p {
	case notebookv1.ImageChange_PHASE_SUCCEEDED, notebookv1.ImageChange_PHASE_UNCHANGED, notebookv1.ImageChange_PHASE_FAILED:
		return true
	default:
		return false
	}
}

// passes reports whether an error may be over at the next attempt.
func passes(err error) bool {
	p := problemOf(err)
	if p == nil {
		return false
	}
	switch p.status.Code() {
	case codes.Unavailable, codes.DeadlineExceeded, codes.ResourceExhausted:
		return true
	default:
		return false
	}
}

// followChange asks for a change until it has ended, ctx ends or span is over, and
// returns its last version.
func (a *app) followChange(ctx context.Context, c *notebookv1.ImageChange, span time.Duration, tell func(*notebookv1.ImageChange) error) (*notebookv1.ImageChange, error) {
	err := a.pollEvery(ctx, changeEvery, span, func(ctx context.Context) (bool, error) {
		now, err := a.change(ctx, c.GetName())
		if err != nil {
			return false, err
		}
		news := now.GetPhase() != c.GetPhase()
		c = now
		if news {
			if err := tell(now); err != nil {
				return false, err
			}
		}
		return ended(now.GetPhase()), nil
	})
	return c, err
}

// tellPhase tells how far a change has come.
func (a *app) tellPhase(c *notebookv1.ImageChange, output string) error {
	if !isTable(output) {
		if output == asName {
			return nil
		}
		return writeEvent(a.stdout, output, c)
	}
	cell := a.phaseCell(c.GetPhase())
	_, err := fmt.Fprintf(a.stdout, "%s  %s\n", a.clock(), cell.Style.Paint(cell.Text, a.colours()))
	return err
}

// followChanges tells the image changes that come or go on.
func (a *app) followChanges(ctx context.Context, filter string, before []*notebookv1.ImageChange, f *historyFlags) error {
	known := map[string]*notebookv1.ImageChange{}
	for _, c := range before {
		known[c.GetName()] = c
	}
	return a.poll(ctx, f.span, func(ctx context.Context) (bool, error) {
		now, err := a.changes(ctx, filter, max(f.limit, newest))
		if err != nil {
			return false, err
		}
		for i := len(now) - 1; i >= 0; i-- { // the oldest first
			c := now[i]
			if was, ok := known[c.GetName()]; ok && proto.Equal(was, c) {
				continue
			} else if ok && was.GetPhase() == c.GetPhase() && isTable(f.output) {
				known[c.GetName()] = c
				continue
			}
			known[c.GetName()] = c
			switch {
			case f.output == asName:
				_, err = fmt.Fprintln(a.stdout, c.GetName())
			case !isTable(f.output):
				err = writeEvent(a.stdout, f.output, c)
			default:
				cell := a.phaseCell(c.GetPhase())
				_, err = fmt.Fprintf(a.stdout, "%s  %s  %s  %s  %s → %s\n", a.clock(), c.GetName(), short(c.GetNotebook()), cell.Style.Paint(cell.Text, a.colours()),
					table.Clean(cmp.Or(c.GetFromImage(), "-")), table.Clean(c.GetToImage()))
			}
			if err != nil {
				return false, err
			}
		}
		return false, nil
	})
}
