package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"
	"google.golang.org/grpc"

	"github.com/notebookd/notebookd/cmd/notebookctl/internal/contexts"
	"github.com/notebookd/notebookd/cmd/notebookctl/internal/words"
	notebookv1 "github.com/notebookd/notebookd/gen/notebook/v1"
)

// The exit codes.
const (
	exitOK      = 0
	exitError   = 1
	exitUsage   = 2
	exitPartial = 3
)

// app is one run of the program with its surroundings.
type app struct {
	l      words.Language
	env    func(string) string
	stdin  io.Reader
	stdout io.Writer
	stderr io.Writer
	now    func() time.Time
	saying sync.Mutex // guards stderr: a watch tells of its connection from another goroutine

	flags globalFlags
	conn  *grpc.ClientConn // of the first call; closed by run
	where contexts.Context // what conn was made of
	named string           // the context of where; empty without one
}

// globalFlags are the flags of every command.
type globalFlags struct {
	config, context, server, tokenFile, ca, cert, key string
	plaintext                                         bool
	timeout                                           time.Duration
	lang                                              string
	changed                                           func(name string) bool
}

// usageError is what is wrong with the command line.
type usageError struct{ text string }

func (e usageError) Error() string { return e.text }

// errPartial ends a command whose answer was given but is not whole; why, was told.
var errPartial = errors.New("partial answer")

// errTold ends a command that has told already why it failed.
var errTold = errors.New("told")

// run is main with its surroundings given. It returns the exit code.
func run(ctx context.Context, args []string, env func(string) string, stdin io.Reader, stdout, stderr io.Writer) int {
	a := &app{l: words.Detect(env), env: env, stdin: stdin, stdout: stdout, stderr: stderr, now: time.Now}
	if l, ok := languageOf(args); ok { // before the commands are made: their help is in it
		a.l = l
	}
	root := a.root()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if a.conn != nil {
		_ = a.conn.Close() // every answer is there
	}
	var usage usageError
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, errPartial):
		return exitPartial
	case errors.Is(err, errTold):
		return exitError
	case errors.As(err, &usage):
		a.say("%s", a.l.T("error: %s", usage.text))
		return exitUsage
	}
	return a.tellError(err)
}

// languageOf looks for --lang in a command line that is not parsed yet.
func languageOf(args []string) (words.Language, bool) {
	for i, arg := range args {
		if arg == "--" {
			break
		}
		if value, ok := strings.CutPrefix(arg, "--lang="); ok {
			return words.Parse(value)
		}
		if arg == "--lang" && i+1 < len(args) {
			return words.Parse(args[i+1])
		}
	}
	return "", false
}

// say tells something on standard error.
func (a *app) say(format string, args ...any) {
	a.saying.Lock()
	defer a.saying.Unlock()
	_, _ = fmt.Fprintf(a.stderr, format+"\n", args...) // nobody is left to be told
}

// usagef makes a usage error of a text that is translated already.
func usagef(text string) error { return usageError{text} }

func (a *app) root() *cobra.Command {
	t := a.l.T
	root := &cobra.Command{
		Use:   "notebookctl",
		Short: t("The command line of notebookd: GPU notebooks of several AI clouds."),
		Long: t("The command line of notebookd: lists and watches the GPU notebooks of several AI clouds, and changes their images.\n\n" +
			"Without a context it calls the server on 127.0.0.1:9090, as `make run` starts it."),
		Example: strings.Join([]string{
			"notebookctl list --filter 'state = RUNNING'",
			"notebookctl watch clouds/core",
			"notebookctl get nb-eiguqichl5hc",
			"notebookctl change-image nb-eiguqichl5hc --image IMAGE --image-type official --plan",
			"notebookctl clouds",
		}, "\n"),
		SilenceErrors: true, SilenceUsage: true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
		Args:              a.noCommand,
		RunE:              func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error { return a.checkGlobals(cmd) },
	}
	root.SetIn(a.stdin)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	f := root.PersistentFlags()
	f.SortFlags = false
	f.StringVar(&a.flags.server, "server", "", t("`address` of the server, host:port (env NOTEBOOKCTL_SERVER)"))
	f.StringVar(&a.flags.context, "context", "", t("`name` of the context to use (env NOTEBOOKCTL_CONTEXT)"))
	f.StringVar(&a.flags.tokenFile, "token-file", "", t("`file` with a token to send (env NOTEBOOKCTL_TOKEN: the token itself)"))
	f.StringVar(&a.flags.ca, "ca", "", t("`file` with the certificates of the authorities that may prove the server"))
	f.StringVar(&a.flags.cert, "cert", "", t("`file` with a client certificate"))
	f.StringVar(&a.flags.key, "key", "", t("`file` with the key of the client certificate"))
	f.BoolVar(&a.flags.plaintext, "plaintext", false, t("speak without TLS; the default for this host itself"))
	f.DurationVar(&a.flags.timeout, "timeout", 30*time.Second, t("`time` that a call may take"))
	f.StringVar(&a.flags.config, "config", "", t("`file` with the contexts (default $XDG_CONFIG_HOME/notebookctl/config.yaml)"))
	f.StringVar(&a.flags.lang, "lang", "", t("`language`, en or zh; the default is that of the locale"))
	f.BoolP("help", "h", false, t("show help"))
	a.flags.changed = func(name string) bool { return f.Changed(name) }

	root.AddCommand(a.listCommand(), a.watchCommand(), a.getCommand(), a.changeImageCommand(), a.cloudsCommand(), a.historyCommand(),
		a.contextCommand(), a.completionCommand(), a.versionCommand())
	root.SetHelpCommand(&cobra.Command{
		Use: "help [COMMAND]", Short: t("Show help of a command."), DisableFlagsInUseLine: true,
		RunE: func(_ *cobra.Command, args []string) error {
			found, rest, err := root.Find(args)
			if err != nil || len(rest) > 0 {
				return usagef(t("there is no command %q; `notebookctl help` lists them", strings.Join(args, " ")))
			}
			return found.Help()
		},
	})
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return a.flagError(err) })
	root.SetHelpFunc(func(cmd *cobra.Command, _ []string) { a.help(cmd) })
	root.SetUsageFunc(func(cmd *cobra.Command) error { a.help(cmd); return nil })
	a.completeFlag(root, "context", a.completeContexts)
	a.completeFlag(root, "lang", fixed("en", "zh"))
	return root
}

// noCommand refuses a word that is no command.
func (a *app) noCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	text := a.l.T("there is no command %q; `%s --help` lists them", args[0], cmd.CommandPath())
	cmd.SuggestionsMinimumDistance = 2
	if like := cmd.SuggestionsFor(args[0]); len(like) > 0 {
		text = a.l.Sentence(text+a.l.Pick(".", "。"), a.l.T("Did you mean %s?", a.l.Join(like)))
	}
	return usagef(text)
}

// atMost checks the number of arguments.
func (a *app) atMost(least, most int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < least:
			return usagef(a.l.T("an argument is missing: %s", cmd.UseLine()))
		case len(args) > most:
			return usagef(a.l.T("%q is too much: %s", args[most], cmd.UseLine()))
		}
		return nil
	}
}

func (a *app) flagError(err error) error {
	var (
		unknown *pflag.NotExistError
		missing *pflag.ValueRequiredError
		invalid *pflag.InvalidValueError
		syntax  *pflag.InvalidSyntaxError
	)
	switch {
	case errors.As(err, &unknown):
		name := "--" + unknown.GetSpecifiedName()
		if unknown.GetSpecifiedShortnames() != "" {
			name = "-" + unknown.GetSpecifiedName()
		}
		return usagef(a.l.T("there is no flag %s", name))
	case errors.As(err, &missing):
		return usagef(a.l.T("the flag --%s needs a value", missing.GetFlag().Name))
	case errors.As(err, &invalid):
		return usagef(a.l.T("%q cannot be the value of --%s", invalid.GetValue(), invalid.GetFlag().Name))
	case errors.As(err, &syntax):
		return usagef(a.l.T("%q is no flag", syntax.GetSpecifiedFlag()))
	}
	return usagef(err.Error())
}

func (a *app) checkGlobals(_ *cobra.Command) error {
	if a.flags.lang != "" {
		if _, ok := words.Parse(a.flags.lang); !ok {
			return usagef(a.l.T("--lang is en or zh, not %q", a.flags.lang))
		}
	}
	if a.flags.timeout <= 0 {
		return usagef(a.l.T("--timeout has to be more than 0"))
	}
	return nil
}

// configPath returns where the contexts are.
func (a *app) configPath() string {
	if a.flags.config != "" {
		return a.flags.config
	}
	return contexts.Path(a.env)
}

// chosen returns the context to use, with what flags and the environment say in
// place of what it says.
func (a *app) chosen() (contexts.Context, error) {
	file, err := contexts.Load(a.configPath(), a.l)
	if err != nil {
		return contexts.Context{}, err
	}
	name := a.flags.context
	if name == "" {
		name = a.env("NOTEBOOKCTL_CONTEXT")
	}
	named := name != ""
	if !named {
		name = file.Current
	}
	var c contexts.Context
	// A context that is named by a flag is used as it is: its token does not go to a
	// server that the environment names, nor a token from there to its server.
	asItIs := a.flags.context != ""
	server := a.flags.server
	if server == "" && !asItIs {
		server = a.env("NOTEBOOKCTL_SERVER")
	}
	// Another server gets nothing of a context that was not named for it, its
	// token least of all.
	if name != "" && (named || server == "") {
		var ok bool
		a.named = name
		if c, ok = file.Contexts[name]; !ok {
			return c, usagef(a.l.T("there is no context %q in %s; `notebookctl context list` shows them", name, a.configPath()))
		}
	}
	if server != "" {
		c.Server = server
	}
	switch {
	case a.flags.tokenFile != "":
		c.TokenFile, c.TokenEnv = a.flags.tokenFile, ""
	case a.env("NOTEBOOKCTL_TOKEN") != "" && (!asItIs || c.TokenFile == "" && c.TokenEnv == "" && c.Cert == ""):
		c.TokenFile, c.TokenEnv = "", "NOTEBOOKCTL_TOKEN"
	}
	if a.flags.ca != "" {
		c.CA = a.flags.ca
	}
	if a.flags.cert != "" {
		c.Cert = a.flags.cert
	}
	if a.flags.key != "" {
		c.Key = a.flags.key
	}
	if a.flags.changed("plaintext") {
		c.Plaintext = &a.flags.plaintext
	}
	return c, nil
}

// connection returns the connection to the server.
func (a *app) connection() (*grpc.ClientConn, error) {
	if a.conn != nil {
		return a.conn, nil
	}
	c, err := a.chosen()
	if err != nil {
		return nil, err
	}
	a.where = c
	if a.conn, err = c.Dial(a.env, a.l); err != nil {
		return nil, usagef(err.Error()) // nothing was called: what flags, environment and context say is wrong
	}
	return a.conn, nil
}

// services are what the server offers.
type services struct {
	notebooks notebookv1.NotebookServiceClient
	clouds    notebookv1.CloudServiceClient
	changes   notebookv1.ImageChangeServiceClient
}

func (a *app) services() (services, error) {
	conn, err := a.connection()
	if err != nil {
		return services{}, err
	}
	return services{notebookv1.NewNotebookServiceClient(conn), notebookv1.NewCloudServiceClient(conn), notebookv1.NewImageChangeServiceClient(conn)}, nil
}

// call bounds the time of a call.
func (a *app) call(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, a.flags.timeout)
}

// terminal returns the file that a stream is, if it is a terminal.
func terminal(stream any) (*os.File, bool) {
	file, ok := stream.(*os.File)
	if !ok || !term.IsTerminal(int(file.Fd())) {
		return nil, false
	}
	return file, true
}

// width returns how wide standard output is; 0 when it is no terminal.
func (a *app) width() int {
	file, ok := terminal(a.stdout)
	if !ok {
		return 0
	}
	width, _, err := term.GetSize(int(file.Fd()))
	if err != nil {
		return 0
	}
	return width
}

// colours reports whether standard output may be coloured.
func (a *app) colours() bool {
	_, ok := terminal(a.stdout)
	return ok && a.env("NO_COLOR") == "" && a.env("TERM") != "dumb"
}

// asks reports whether a person is there to be asked.
func (a *app) asks() bool {
	_, in := terminal(a.stdin)
	_, out := terminal(a.stderr)
	return in && out
}
