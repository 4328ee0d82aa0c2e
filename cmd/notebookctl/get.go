package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/notebookd/notebookd/client"
	"github.com/notebookd/notebookd/cmd/notebookctl/internal/table"
	notebookv1 "github.com/notebookd/notebookd/gen/notebook/v1"
)

func (a *app) getCommand() *cobra.Command {
	var output string
	var watch bool
	var span time.Duration
	cmd := &cobra.Command{
		Use: "get NAME", DisableFlagsInUseLine: true,
		Short: a.l.T("Show all that is known of a notebook."),
		Long: a.l.T("Show all that is known of a notebook.\n\n" +
			"NAME is its resource name, CLOUD/LOCATION/ID, its id, its display name, or the beginning of one of these two if only one notebook has it."),
		Example: strings.Join([]string{
			"notebookctl get clouds/core/locations/xb3/notebooks/nb-eiguqichl5hc",
			"notebookctl get core/xb3/nb-eiguqichl5hc",
			"notebookctl get nb-eigu -o yaml",
			"notebookctl get nb-eiguqichl5hc -w",
		}, "\n"),
		Args: a.atMost(1, 1), ValidArgsFunction: a.completeNotebooks,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.get(cmd.Context(), args[0], output, watch, span)
		},
	}
	cmd.Flags().SortFlags = false
	a.outputFlag(cmd, &output, asTable, asJSON, asYAML, asName)
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, a.l.T("go on and tell every change"))
	a.spanFlag(cmd, &span)
	return cmd
}

func (a *app) get(ctx context.Context, name, output string, watch bool, span time.Duration) error {
	if span < 0 || span > 0 && !watch {
		return usagef(a.l.T("--for belongs to --watch, and is not negative"))
	}
	ctx, cancel := bounded(ctx, span)
	defer cancel()
	n, whole, err := a.resolve(ctx, name, true)
	if err != nil {
		return err
	}
	// Of the locations that were looked at, only its own matters.
	own := strings.Join(strings.Split(n.GetName(), "/")[:4], "/")
	whole.Unreachable = slices.DeleteFunc(whole.GetUnreachable(), func(s string) bool { return s != own && s != "clouds/"+cloudOf(own) })
	whole.Freshness = slices.DeleteFunc(whole.GetFreshness(), func(f *notebookv1.Freshness) bool { return f.GetLocation() != own })
	switch output {
	case asTable:
		err = a.showNotebook(n, whole)
	case asName:
		_, err = fmt.Fprintln(a.stdout, n.GetName())
	default:
		err = writeMessageOr(watch, a, output, n)
	}
	if err != nil {
		return err
	}
	partial := a.tellFreshness(whole)
	if watch {
		// The watch has a filter of its own, so that it begins with the one notebook;
		// what differs from what was shown is told.
		f := &listFlags{filter: "name = " + quote(n.GetName()), output: output, watch: true}
		from := client.State{Notebooks: map[string]*notebookv1.Notebook{n.GetName(): n}}
		if err := a.follow(ctx, own, f, from, &listing{a: a, out: bufio.NewWriter(a.stdout), f: f}); err != nil {
			return err
		}
	}
	if partial {
		return errPartial
	}
	return nil
}

// writeMessageOr writes a notebook by itself, or as the first event of a watch.
func writeMessageOr(watch bool, a *app, output string, n *notebookv1.Notebook) error {
	if !watch {
		return writeMessage(a.stdout, output, n)
	}
	return writeEvent(a.stdout, output, &notebookv1.WatchResponse{Event: &notebookv1.WatchResponse_Notebook{Notebook: &notebookv1.NotebookEvent{
		Type: notebookv1.NotebookEvent_TYPE_ADDED, Notebook: n, Initial: true,
	}}})
}

var (
	fullForm  = regexp.MustCompile(`^clouds/[^/]+/locations/[^/]+/notebooks/[^/]+$`)
	shortForm = regexp.MustCompile(`^([a-z][a-z0-9-]*)/([A-Za-z0-9][A-Za-z0-9._-]*)/([A-Za-z0-9][A-Za-z0-9._-]*)$`)
)

// quote makes a text a value of a filter.
func quote(text string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(text) + `"`
}

// resolve finds the notebook that a person names. With prefixes the beginning of an
// id or display name is enough, if it is that of one notebook only; what changes
// something should not guess.
func (a *app) resolve(ctx context.Context, text string, prefixes bool) (*notebookv1.Notebook, *notebookv1.ListResponse, error) {
	if m := shortForm.FindStringSubmatch(text); m != nil {
		text = "clouds/" + m[1] + "/locations/" + m[2] + "/notebooks/" + m[3]
	}
	find := func(parent, filter string, most int, is func(*notebookv1.Notebook) bool) ([]*notebookv1.Notebook, *notebookv1.ListResponse, error) {
		var found []*notebookv1.Notebook
		whole, err := a.pages(ctx, &notebookv1.ListRequest{Parent: parent, Filter: filter}, most, func(page *notebookv1.ListResponse) error {
			for _, n := range page.GetNotebooks() {
				if is(n) { // a "*" in what was typed stands for anything in a filter
					found = append(found, n)
				}
			}
			return nil
		})
		return found, whole, err
	}
	if fullForm.MatchString(text) {
		found, whole, err := find(strings.Join(strings.Split(text, "/")[:4], "/"), "name = "+quote(text), 0, func(n *notebookv1.Notebook) bool { return n.GetName() == text })
		switch {
		case err != nil:
			return nil, nil, err
		case len(found) == 0:
			return nil, nil, a.notFound(ctx, text, idOf(text), whole)
		}
		return found[0], whole, nil
	}
	if text == "" {
		return nil, nil, usagef(a.l.T("the name of a notebook is empty"))
	}
	found, whole, err := find("", "name = "+quote("*/notebooks/"+text)+" OR display_name = "+quote(text), 0, func(n *notebookv1.Notebook) bool {
		return idOf(n.GetName()) == text || n.GetDisplayName() == text
	})
	if err == nil && len(found) == 0 && prefixes {
		found, whole, err = find("", "name = "+quote("*/notebooks/"+text+"*")+" OR display_name = "+quote(text+"*"), maxPage, func(n *notebookv1.Notebook) bool {
			return strings.HasPrefix(idOf(n.GetName()), text) || strings.HasPrefix(n.GetDisplayName(), text)
		})
	}
	switch {
	case err != nil:
		return nil, nil, err
	case len(found) == 0:
		return nil, nil, a.notFound(ctx, text, text, whole)
	case len(found) > 1:
		return nil, nil, errors.New(a.l.T("%q is the name of %d notebooks; say which one:\n%s", text, len(found), a.candidates(found, len(found))))
	}
	return found[0], whole, nil
}

// candidates lists notebooks to choose from.
func (a *app) candidates(found []*notebookv1.Notebook, total int) string {
	const most = 10
	lines := make([]string, 0, most+1)
	for _, n := range found[:min(len(found), most)] {
		lines = append(lines, fmt.Sprintf("  %s  (%s, %s)", n.GetName(), table.Clean(cmp.Or(n.GetDisplayName(), "-")), a.l.State(n.GetState())))
	}
	if total > most {
		lines = append(lines, "  "+a.l.T("and %d more", total-most))
	}
	return strings.Join(lines, "\n")
}

// notFound says that there is no such notebook, which there are that are similar, and
// which locations could not be looked at.
func (a *app) notFound(ctx context.Context, text, word string, whole *notebookv1.ListResponse) error {
	lines := a.l.T("there is no notebook %q", text)
	var like []*notebookv1.Notebook
	total := 0
	// Whoever mistypes the end has typed the beginning.
	for _, part := range []string{word, word[:min(len(word), max(4, len(word)*2/3))]} {
		part = strings.ToValidUTF8(part, "")
		if part == "" {
			continue
		}
		_, err := a.pages(ctx, &notebookv1.ListRequest{Filter: quote(part)}, 10, func(page *notebookv1.ListResponse) error {
			like, total = append(like, page.GetNotebooks()...), int(page.GetTotalSize())
			return nil
		})
		if err != nil || len(like) > 0 {
			break // what is similar is an extra: without it, the answer is the same
		}
	}
	if len(like) > 0 {
		lines += a.l.Pick("; ", "；") + a.l.T("these are similar:\n%s", a.candidates(like, total))
	}
	for _, name := range whole.GetUnreachable() {
		lines += "\n  " + a.l.T("%s cannot be reached: it may be there and not be known", name)
	}
	return errors.New(lines)
}

// showNotebook shows all that is known of a notebook.
func (a *app) showNotebook(n *notebookv1.Notebook, whole *notebookv1.ListResponse) error {
	t := a.l.T
	f := &table.Fields{}
	f.Add(t("Name"), table.Text(n.GetName()))
	f.Add(t("Display name"), table.Text(n.GetDisplayName()))
	f.Add(t("State"), a.stateCell(n.GetState()))
	f.Add(t("Cloud's state"), table.Text(n.GetCloudState()))
	f.Add(t("Message"), table.Text(n.GetStateMessage()))
	f.Add(t("Created"), table.Text(a.when(n.GetCreateTime())))
	f.Add(t("Changed"), table.Text(a.when(n.GetUpdateTime())))
	f.Add(t("Stops"), table.Text(a.when(n.GetStopTime())))
	f.Add(t("Expires"), table.Cell{Text: a.when(n.GetExpireTime()), Style: a.expiry(n)})
	f.Add(t("This version seen"), table.Text(a.when(n.GetObserveTime())))
	for _, fresh := range whole.GetFreshness() {
		f.Add(t("Location last read"), table.Text(a.when(fresh.GetObserveTime())))
	}
	if n.Progress != nil {
		f.Add(t("Progress"), table.Text(fmt.Sprint(n.GetProgress())))
	}
	f.Section(t("Image"))
	f.Sub(t("Reference"), table.Text(n.GetImage().GetUri()))
	f.Sub(t("Display name"), table.Text(n.GetImage().GetDisplayName()))
	f.Sub(t("Type"), table.Text(n.GetImage().GetType()))
	f.Sub(t("Size"), table.Text(size(n.GetImage().GetSizeBytes())))
	f.Section(t("Resources"))
	r := n.GetResources()
	f.Sub(t("CPU cores"), table.Text(number(r.GetCpuCores())))
	f.Sub(t("Memory"), table.Text(size(r.GetMemoryBytes())))
	f.Sub(t("Accelerators"), table.Text(cards(r)))
	if acc := r.GetAccelerator(); acc != nil {
		f.Sub(t("Kind of card"), table.Text(acc.GetType()))
		if acc.AvailableCount != nil {
			f.Sub(t("Free in the group"), table.Text(fmt.Sprint(acc.GetAvailableCount())))
		}
		if acc.MaxCount != nil {
			f.Sub(t("Most cards"), table.Text(fmt.Sprint(acc.GetMaxCount())))
		}
	}
	f.Sub(t("Resource group"), table.Text(strings.Join(slices.DeleteFunc([]string{n.GetResourceGroup().GetId(), n.GetResourceGroup().GetCode()}, func(s string) bool { return s == "" }), " ")))
	f.Section(t("Endpoints"))
	e := n.GetEndpoints()
	f.Sub(t("Server type"), table.Text(n.GetServerType()))
	f.Sub(t("Address"), table.Text(e.GetServiceUrl()))
	f.Sub(t("IP address"), table.Text(e.GetServiceIp()))
	f.Sub("SSH", table.Text(e.GetSshUrl()))
	if e.GetCustomPort() != 0 {
		f.Sub(t("Custom port"), table.Text(fmt.Sprint(e.GetCustomPort())))
	}
	f.Section(t("Package mirrors"))
	f.Sub("pip", table.Text(n.GetMirrors().GetPip()))
	f.Sub("conda", table.Text(n.GetMirrors().GetConda()))
	f.Sub("apt", table.Text(n.GetMirrors().GetApt()))
	f.Section(t("Owner and more"))
	f.Sub(t("Owner"), table.Text(n.GetOwnerId()))
	f.Sub(t("Account"), table.Text(n.GetRootOwnerId()))
	f.Sub(t("Namespace"), table.Text(n.GetNamespace()))
	f.Sub(t("Environment variables"), table.Text(strings.Join(n.GetEnvNames(), " ")))
	f.Sub("etag", table.Text(n.GetEtag()))
	f.Section(t("Attributes of the cloud"))
	for _, key := range slices.Sorted(maps.Keys(n.GetAttributes())) {
		f.Sub(key, table.Text(n.GetAttributes()[key]))
	}
	return f.Write(a.stdout, a.width(), a.colours())
}

// expiry is the style of the time at which a notebook is released.
func (a *app) expiry(n *notebookv1.Notebook) table.Style {
	if n.GetExpireTime() != nil && n.GetExpireTime().AsTime().Sub(a.now()) < 24*time.Hour {
		return table.Red
	}
	return table.Plain
}
