package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"

	"github.com/notebookd/notebookd/internal/access"
	"github.com/notebookd/notebookd/web/sentences"
)

// tokenHelp is what the command says, in one language.
type tokenHelp struct{ subject, group, usage, shown string }

var (
	tokenInEnglish = tokenHelp{
		subject: "`name` of whom the token is for, as in auth.policy",
		group:   "`name` of a group that the subject is in; may be repeated",
		usage:   "usage: server token -subject name [-group name]... >> tokens.yaml",
		shown:   "The token, which is shown only now: %s\n",
	}
	tokenInChinese = tokenHelp{
		subject: "令牌属于谁，即 auth.policy 中的`名称`",
		group:   "其所属组的`名称`，可多次给出",
		usage:   "用法：server token -subject 名称 [-group 名称]... >> tokens.yaml",
		shown:   "令牌（仅此一次显示）: %s\n", // scripts cut at the last ": "
	}
)

// newToken makes a static token. What belongs into the tokens file goes to stdout, so
// that it can be appended there, and the token itself, which is kept nowhere, to
// stderr.
func newToken(_ context.Context, args []string, stdout, stderr io.Writer) int {
	say, chinese := tokenInEnglish, sentences.Wanted(os.Getenv)
	if chinese {
		say = tokenInChinese
	}
	flags := flag.NewFlagSet("server token", flag.ContinueOnError)
	flags.SetOutput(flagsOutput(stderr, chinese))
	subject := flags.String("subject", "", say.subject)
	var groups []string
	flags.Func("group", say.group, func(name string) error {
		groups = append(groups, name)
		return nil
	})
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return 0
	} else if err != nil {
		return 2
	}
	if *subject == "" || flags.NArg() > 0 {
		_, _ = fmt.Fprintln(stderr, say.usage)
		return 2
	}
	token, entry, err := access.NewToken(*subject, groups)
	if err != nil {
		_, _ = fmt.Fprintln(stderr, "token:", saidOf(err, chinese))
		return 1
	}
	if _, err := io.WriteString(stdout, entry); err != nil {
		_, _ = fmt.Fprintln(stderr, "token:", err)
		return 1
	}
	_, _ = fmt.Fprintf(stderr, say.shown, token)
	return 0
}
