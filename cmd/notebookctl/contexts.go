package main

import (
	"bufio"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/notebookd/notebookd/cmd/notebookctl/internal/contexts"
	"github.com/notebookd/notebookd/cmd/notebookctl/internal/table"
)

func (a *app) contextCommand() *cobra.Command {
	t := a.l.T
	cmd := &cobra.Command{
		Use: "context", Aliases: []string{"contexts"}, DisableFlagsInUseLine: true,
		Short: t("Manage contexts: which server is called, and as whom."),
		Long: t("Manage contexts: which server is called, and as whom. They are kept in a file that only you can read, and never hold a token: " +
			"only the name of the file or the variable that it is in.\n\n" +
			"What flags and NOTEBOOKCTL_SERVER, NOTEBOOKCTL_TOKEN and NOTEBOOKCTL_CONTEXT say comes first. A server that is named by itself gets nothing of the current context."),
		Args: a.noCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.contextList(), a.contextUse(), a.contextSet(), a.contextDelete(), a.contextShow())
	return cmd
}

func (a *app) contextList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, DisableFlagsInUseLine: true,
		Short: a.l.T("List the contexts; the current one has a star."), Args: a.atMost(0, 0),
		RunE: func(*cobra.Command, []string) error {
			file, err := contexts.Load(a.configPath(), a.l)
			if err != nil {
				return err
			}
			if len(file.Contexts) == 0 {
				a.say("%s", a.l.T("There are no contexts; %s is called. Make one with: notebookctl context set NAME --server HOST:PORT", contexts.Context{}.In(a.l)))
				return nil
			}
			t := a.l.T
			rows := &table.Table{Columns: []table.Column{{Title: " "}, {Title: t("NAME")}, {Title: t("SERVER"), Min: 16}, {Title: "TLS", Drop: 1}, {Title: t("CREDENTIALS"), Min: 12, Drop: 2}}}
			for _, name := range slices.Sorted(maps.Keys(file.Contexts)) {
				c, star, secured := file.Contexts[name], " ", t("yes")
				if name == file.Current {
					star = "*"
				}
				if c.Plain() {
					secured = t("no")
				}
				rows.Add(table.Text(star), table.Text(name), table.Text(c.Address()), table.Text(secured), table.Text(c.Credentials(a.l)))
			}
			return rows.Write(a.stdout, a.width(), a.colours())
		},
	}
}

// changeContexts changes the file of contexts.
func (a *app) changeContexts(change func(*contexts.File) error) error {
	file, err := contexts.Load(a.configPath(), a.l)
	if err != nil {
		return err
	}
	if file.Contexts == nil {
		file.Contexts = map[string]contexts.Context{}
	}
	if err := change(&file); err != nil {
		return err
	}
	return file.Save(a.configPath())
}

func (a *app) noContext(name string) error {
	return usagef(a.l.T("there is no context %q in %s; `notebookctl context list` shows them", name, a.configPath()))
}

func (a *app) contextUse() *cobra.Command {
	return &cobra.Command{
		Use: "use NAME", DisableFlagsInUseLine: true, ValidArgsFunction: a.completeContexts,
		Short: a.l.T("Make a context the current one."), Args: a.atMost(1, 1),
		RunE: func(_ *cobra.Command, args []string) error {
			err := a.changeContexts(func(file *contexts.File) error {
				if _, ok := file.Contexts[args[0]]; !ok {
					return a.noContext(args[0])
				}
				file.Current = args[0]
				return nil
			})
			if err == nil {
				a.say("%s", a.l.T("The current context is %s.", args[0]))
			}
			return err
		},
	}
}

func (a *app) contextSet() *cobra.Command {
	var serverName, tokenEnv string
	var tokenStdin bool
	cmd := &cobra.Command{
		Use: "set NAME", DisableFlagsInUseLine: true, ValidArgsFunction: a.completeContexts,
		Short: a.l.T("Make a context, or change what flags name of one."),
		Long: a.l.T("Make a context, or change what flags name of one: --server, --ca, --cert, --key, --plaintext, --token-file and those below. An empty value takes something away. " +
			"The first context becomes the current one."),
		Example: strings.Join([]string{
			"notebookctl context set prod --server notebookd.example:9090 --ca ca.pem --token-file token",
			"notebookctl context set prod --token-stdin < token",
			"notebookctl context set local --server 127.0.0.1:9090 --plaintext",
		}, "\n"),
		Args: a.atMost(1, 1),
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		name := args[0]
		if !contexts.ValidName(name) {
			return usagef(a.l.T("%q cannot be the name of a context: letters, digits, dots, hyphens and underscores can", name))
		}
		changed := cmd.Flags().Changed
		sources := 0
		for _, flag := range []string{"token-file", "token-env", "token-stdin"} {
			if changed(flag) {
				sources++
			}
		}
		if sources > 1 {
			return usagef(a.l.T("--token-file, --token-env and --token-stdin exclude each other"))
		}
		if changed("token-env") && a.env(tokenEnv) == "" && strings.ContainsAny(tokenEnv, ".-+/= ") {
			return usagef(a.l.T("--token-env takes the name of a variable, not the token itself"))
		}
		err := a.changeContexts(func(file *contexts.File) error {
			c := file.Contexts[name]
			for _, set := range []struct {
				flag, value string
				to          *string
				path        bool
			}{
				{"server", a.flags.server, &c.Server, false}, {"ca", a.flags.ca, &c.CA, true}, {"cert", a.flags.cert, &c.Cert, true}, {"key", a.flags.key, &c.Key, true},
				{"server-name", serverName, &c.ServerName, false},
			} {
				if changed(set.flag) {
					value, err := set.value, error(nil)
					if set.path {
						value, err = absolute(value)
					}
					if err != nil {
						return err
					}
					*set.to = value
				}
			}
			if changed("plaintext") {
				plain := a.flags.plaintext
				c.Plaintext = &plain
			}
			switch {
			case changed("token-file"):
				path, err := absolute(a.flags.tokenFile)
				if err != nil {
					return err
				}
				c.TokenFile, c.TokenEnv = path, ""
			case changed("token-env"):
				c.TokenFile, c.TokenEnv = "", tokenEnv
			case tokenStdin:
				path, err := a.storeToken(name)
				if err != nil {
					return err
				}
				c.TokenFile, c.TokenEnv = path, ""
			}
			file.Contexts[name] = c
			if file.Current == "" {
				file.Current = name
			}
			return nil
		})
		if err == nil {
			a.say("%s", a.l.T("The context %s is in %s.", name, a.configPath()))
		}
		return err
	}
	cmd.Flags().SortFlags = false
	cmd.Flags().StringVar(&serverName, "server-name", "", a.l.T("`name` that the server's certificate has, if it is not the host of --server"))
	cmd.Flags().StringVar(&tokenEnv, "token-env", "", a.l.T("`name` of the variable of the environment that the token is in"))
	cmd.Flags().BoolVar(&tokenStdin, "token-stdin", false, a.l.T("read a token from standard input, and keep it in a file beside the contexts that only you can read"))
	return cmd
}

// absolute makes a path good for every working directory.
func absolute(path string) (string, error) {
	if path == "" {
		return "", nil
	}
	return filepath.Abs(path)
}

// tokenPath is where the token of a context is kept that came from standard input.
func (a *app) tokenPath(name string) (string, error) {
	return absolute(filepath.Join(filepath.Dir(a.configPath()), "tokens", name))
}

func (a *app) storeToken(name string) (string, error) {
	text, err := bufio.NewReader(io.LimitReader(a.stdin, 1<<16)).ReadString('\n')
	if err != nil && err != io.EOF { //nolint:errorlint // readers return it as it is
		return "", err
	}
	token := strings.TrimSpace(text)
	if token == "" || strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", usagef(a.l.T("what came from standard input is no token: it has to be one word"))
	}
	path, err := a.tokenPath(name)
	if err != nil {
		return "", err
	}
	return path, contexts.WriteSecret(path, []byte(token+"\n"))
}

func (a *app) contextDelete() *cobra.Command {
	return &cobra.Command{
		Use: "delete NAME", Aliases: []string{"rm"}, DisableFlagsInUseLine: true, ValidArgsFunction: a.completeContexts,
		Short: a.l.T("Delete a context, and its token if it came from standard input."), Args: a.atMost(1, 1),
		RunE: func(_ *cobra.Command, args []string) error {
			name := args[0]
			err := a.changeContexts(func(file *contexts.File) error {
				c, ok := file.Contexts[name]
				if !ok {
					return a.noContext(name)
				}
				if path, err := a.tokenPath(name); err == nil && contexts.ValidName(name) && c.TokenFile == path {
					if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
						return err
					}
				}
				delete(file.Contexts, name)
				if file.Current == name {
					file.Current = ""
				}
				return nil
			})
			if err == nil {
				a.say("%s", a.l.T("The context %s is deleted.", name))
			}
			return err
		},
	}
}

func (a *app) contextShow() *cobra.Command {
	return &cobra.Command{
		Use: "show [NAME]", DisableFlagsInUseLine: true, ValidArgsFunction: a.completeContexts,
		Short: a.l.T("Show a context, or what would be used now."), Args: a.atMost(0, 1),
		RunE: func(_ *cobra.Command, args []string) error {
			t := a.l.T
			var c contexts.Context
			var name string
			if len(args) > 0 {
				file, err := contexts.Load(a.configPath(), a.l)
				if err != nil {
					return err
				}
				var ok bool
				if c, ok = file.Contexts[args[0]]; !ok {
					return a.noContext(args[0])
				}
				name = args[0]
			} else {
				var err error
				if c, err = a.chosen(); err != nil {
					return err
				}
				name = a.named
			}
			f := &table.Fields{}
			secured := t("yes")
			if c.Plain() {
				secured = t("no")
			}
			f.Add(t("Context"), table.Text(name))
			f.Add(t("Server"), table.Text(c.Address()))
			f.Add("TLS", table.Text(secured))
			f.Add(t("Authorities"), table.Text(c.CA))
			f.Add(t("Server name"), table.Text(c.ServerName))
			f.Add(t("Credentials"), table.Text(firstOf(c.Credentials(a.l), t("none"))))
			f.Add(t("Key"), table.Text(c.Key))
			f.Add(t("File"), table.Text(a.configPath()))
			return f.Write(a.stdout, a.width(), a.colours())
		},
	}
}

func firstOf(texts ...string) string {
	for _, text := range texts {
		if text != "" {
			return text
		}
	}
	return ""
}
