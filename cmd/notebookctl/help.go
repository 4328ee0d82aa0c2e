package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/notebookd/notebookd/cmd/notebookctl/internal/table"
)

// help shows the help of a command. Cobra's own is in English only.
func (a *app) help(cmd *cobra.Command) {
	t, out := a.l.T, a.stdout
	about := cmd.Long
	if about == "" {
		about = cmd.Short
	}
	put := func(format string, args ...any) { _, _ = fmt.Fprintf(out, format, args...) } // nobody is left to be told
	wrap := a.width()
	for _, line := range strings.Split(about, "\n") {
		put("%s\n", strings.Join(table.Wrap(line, wrap), "\n"))
	}
	put("\n%s\n", t("Usage:"))
	if !cmd.HasSubCommands() {
		line := "notebookctl " + strings.TrimPrefix(cmd.CommandPath()+strings.TrimPrefix(cmd.Use, cmd.Name()), "notebookctl ")
		put("  %s\n", line+" "+t("[flags]"))
	}
	if cmd.HasAvailableSubCommands() {
		put("  %s\n", cmd.CommandPath()+" "+t("COMMAND [flags]"))
		put("\n%s\n", t("Commands:"))
		rows := [][2]string{}
		for _, sub := range cmd.Commands() {
			if sub.IsAvailableCommand() || sub.Name() == "help" {
				rows = append(rows, [2]string{sub.Name(), sub.Short})
			}
		}
		columns(out, rows, wrap)
	}
	if cmd.Example != "" {
		put("\n%s\n", t("Examples:"))
		for _, line := range strings.Split(cmd.Example, "\n") {
			put("  %s\n", line)
		}
	}
	if own := flagRows(a, cmd.LocalNonPersistentFlags()); len(own) > 0 {
		put("\n%s\n", t("Flags:"))
		columns(out, own, wrap)
	}
	put("\n%s\n", t("Global flags:"))
	columns(out, flagRows(a, cmd.Root().PersistentFlags()), wrap)
	if !cmd.HasParent() {
		put("\n%s\n", t("Exit codes:"))
		columns(out, [][2]string{
			{"0", t("it worked")},
			{"1", t("it failed")},
			{"2", t("the command line is wrong, or the server calls a value of it invalid")},
			{"3", t("the answer is there but not whole: a location cannot be reached, and what is shown of it may be old")},
		}, wrap)
		put("\n%s\n", t("`notebookctl COMMAND --help` says more about a command."))
	}
}

// flagRows describes flags.
func flagRows(a *app, flags *pflag.FlagSet) [][2]string {
	var rows [][2]string
	flags.SortFlags = false // they are in an order that makes sense
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden {
			return
		}
		value, about := pflag.UnquoteUsage(f)
		name := "    --" + f.Name
		if f.Shorthand != "" {
			name = "-" + f.Shorthand + ", --" + f.Name
		}
		if value != "" && f.Value.Type() != "bool" {
			name += " " + value
		}
		switch f.DefValue {
		case "", "0", "0s", "false", "[]":
		default:
			about += a.l.T(" (default %s)", f.DefValue)
		}
		rows = append(rows, [2]string{name, about})
	})
	return rows
}

// columns shows names and what they are, aligned.
func columns(out io.Writer, rows [][2]string, width int) {
	first := 0
	for _, row := range rows {
		first = max(first, table.Width(row[0]))
	}
	for _, row := range rows {
		name := row[0]
		for _, line := range table.Wrap(row[1], width-first-5) {
			_, _ = fmt.Fprintf(out, "  %s   %s\n", table.Pad(name, first), line) // nobody is left to be told
			name = ""
		}
	}
}
