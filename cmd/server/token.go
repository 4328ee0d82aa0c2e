package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"

	"github.com/notebookd/notebookd/internal/access"
)

// newToken makes a static token. What belongs into the tokens file goes to stdout, so
// that it can be appended there, and the token itself, which is kept nowhere, to
// stderr.
func newToken(_ context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("server token", flag.ContinueOnError)
	flags.SetOutput(stderr)
	subject := flags.String("subject", "", "`name` of whom the token is for, as in auth.policy")
	var groups []string
	flags.Func("group", "`name` of a group that the subject is in; may be repeated", func(name string) error {
		groups = append(groups, name)
		return nil
	})
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return 0
	} else if err != nil {
		return 2
	}
	if *subject == "" || flags.NArg() > 0 {
		_, _ = fmt.Fprintln(stderr, "usage: server token -subject name [-group name]... >> tokens.yaml")
		return 2
	}
	token, entry, err := access.NewToken(*subject, groups)
	if err != nil {
		_, _ = fmt.Fprintln(stderr, "token:", err)
		return 1
	}
	if _, err := io.WriteString(stdout, entry); err != nil {
		_, _ = fmt.Fprintln(stderr, "token:", err)
		return 1
	}
	_, _ = fmt.Fprintf(stderr, "The token, which is shown only now: %s\n", token)
	return 0
}
