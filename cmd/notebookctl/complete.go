package main

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/notebookd/notebookd/cmd/notebookctl/internal/contexts"
	"github.com/notebookd/notebookd/cmd/notebookctl/internal/table"
	"github.com/notebookd/notebookd/cmd/notebookctl/internal/words"
	notebookv1 "github.com/notebookd/notebookd/gen/notebook/v1"
)

func (a *app) completionCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "completion bash|zsh|fish|powershell", DisableFlagsInUseLine: true,
		Short: a.l.T("Write a script that lets a shell complete commands, flags, notebooks, clouds and more."),
		Long: a.l.T("Write a script that lets a shell complete commands, flags, notebooks, clouds, contexts, fields of filters and codes of consequences.\n\n" +
			"  bash:        source <(notebookctl completion bash)\n" +
			"  zsh:         notebookctl completion zsh > \"${fpath[1]}/_notebookctl\"\n" +
			"  fish:        notebookctl completion fish > ~/.config/fish/completions/notebookctl.fish\n" +
			"  powershell:  notebookctl completion powershell | Out-String | Invoke-Expression"),
		ValidArgs: []string{"bash", "zsh", "fish", "powershell"}, Args: a.atMost(1, 1),
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		root := cmd.Root()
		switch args[0] {
		case "bash":
			return root.GenBashCompletionV2(a.stdout, true)
		case "zsh":
			return root.GenZshCompletion(a.stdout)
		case "fish":
			return root.GenFishCompletion(a.stdout, true)
		case "powershell":
			return root.GenPowerShellCompletionWithDesc(a.stdout)
		default:
			return usagef(a.l.T("there is no completion for %q: it is bash, zsh, fish or powershell", args[0]))
		}
	}
	return cmd
}

// completer suggests values for what is being typed.
type completer = cobra.CompletionFunc

// completeFlag sets what suggests the values of a flag.
func (a *app) completeFlag(cmd *cobra.Command, flag string, c completer) {
	if err := cmd.RegisterFlagCompletionFunc(flag, c); err != nil {
		panic(err) // the flag is not there: a mistake in this program, seen by every test
	}
}

// fixed suggests words.
func fixed(values ...string) completer {
	return func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return values, cobra.ShellCompDirectiveNoFileComp
	}
}

// completionTime bounds how long somebody waits for suggestions.
const completionTime = 3 * time.Second

func completing(cmd *cobra.Command) (context.Context, context.CancelFunc) {
	ctx := cmd.Context()
	if ctx == nil {
		ctx = context.Background()
	}
	return context.WithTimeout(ctx, completionTime)
}

// errEnough ends a list that is long enough.
var errEnough = errors.New("enough")

// completeNotebooks suggests names, ids and CLOUD/LOCATION/ID, as begun.
func (a *app) completeNotebooks(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	ctx, cancel := completing(cmd)
	defer cancel()
	var out []string
	parts := strings.Split(begun, "/")
	form, filter := idOf, ""
	switch {
	case strings.HasPrefix(begun, "clouds/"):
		form, filter = func(name string) string { return name }, "name = "+quote(begun+"*")
	case len(parts) > 1:
		form = short
		filter = "cloud = " + quote(parts[0])
		if len(parts) > 2 {
			filter += " location = " + quote(parts[1])
		}
	case begun != "":
		filter = "name = " + quote("*/notebooks/"+begun+"*") + " OR cloud = " + quote(begun+"*")
	}
	_, err := a.pages(ctx, &notebookv1.ListRequest{Filter: filter}, maxPage, func(page *notebookv1.ListResponse) error {
		for _, n := range page.GetNotebooks() {
			text := form(n.GetName())
			if !strings.HasPrefix(text, begun) { // begun with the name of its cloud
				text = short(n.GetName())
			}
			if strings.HasPrefix(text, begun) {
				out = append(out, text+"\t"+table.Clean(n.GetDisplayName())+" ("+a.l.State(n.GetState())+")")
			}
		}
		if len(out) >= maxPage {
			return errEnough
		}
		return nil
	})
	if err != nil && !errors.Is(err, errEnough) {
		return nil, cobra.ShellCompDirectiveNoFileComp // a shell's line is no place for errors
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}

// completeParents suggests clouds and their locations.
func (a *app) completeParents(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	ctx, cancel := completing(cmd)
	defer cancel()
	clouds, err := a.readClouds(ctx, "")
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp // as above
	}
	form := short
	if strings.HasPrefix(begun, "clouds/") {
		form = func(name string) string { return name }
	}
	var out []string
	for _, c := range clouds {
		if name := form(c.GetName()); strings.HasPrefix(name, begun) {
			out = append(out, name+"\t"+c.GetKind())
		}
		for _, l := range c.GetLocations() {
			if name := form(l.GetName()); strings.HasPrefix(name, begun) {
				out = append(out, name+"\t"+table.Clean(l.GetDisplayName())+" ("+a.l.LocationState(l.GetState())+")")
			}
		}
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}

// completeHistory suggests image changes and notebooks.
func (a *app) completeHistory(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 || !strings.HasPrefix(begun, "i") {
		return a.completeNotebooks(cmd, args, begun)
	}
	ctx, cancel := completing(cmd)
	defer cancel()
	changes, err := a.changes(ctx, "", newest)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp // as above
	}
	var out []string
	for _, c := range changes {
		if strings.HasPrefix(c.GetName(), begun) {
			out = append(out, c.GetName()+"\t"+short(c.GetNotebook())+" ("+a.l.Phase(c.GetPhase())+")")
		}
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}

// completeContexts suggests contexts.
func (a *app) completeContexts(_ *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
	file, err := contexts.Load(a.configPath(), a.l)
	if err != nil || len(args) > 0 && begun == "" {
		return nil, cobra.ShellCompDirectiveNoFileComp // as above
	}
	var out []string
	for _, name := range slices.Sorted(maps.Keys(file.Contexts)) {
		out = append(out, name+"\t"+file.Contexts[name].Address())
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}

// completeCodes suggests the codes of consequences, after others as well.
func (a *app) completeCodes(_ *cobra.Command, _ []string, begun string) ([]string, cobra.ShellCompDirective) {
	before := begun[:strings.LastIndex(begun, ",")+1]
	var out []string
	for _, code := range words.WarningCodes() {
		if !slices.Contains(strings.Split(before, ","), code) {
			out = append(out, before+code+"\t"+a.l.Consequence(code))
		}
	}
	return out, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
}

// completeFilter suggests the fields of a filter: at its beginning, and after a blank
// or a parenthesis.
func (a *app) completeFilter(fields []string) completer {
	return func(_ *cobra.Command, _ []string, begun string) ([]string, cobra.ShellCompDirective) {
		before := begun[:strings.LastIndexAny(begun, " (-")+1]
		var out []string
		for _, field := range fields {
			if strings.HasPrefix(before+field, begun) {
				out = append(out, before+field)
			}
		}
		return out, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
	}
}

// The fields that filters may name, by the contract: those of the messages, and the
// cloud and location that are in their names.
var (
	notebookFields = fieldsOf((&notebookv1.Notebook{}).ProtoReflect().Descriptor())
	changeFields   = fieldsOf((&notebookv1.ImageChange{}).ProtoReflect().Descriptor(), "steps", "warnings")
)
