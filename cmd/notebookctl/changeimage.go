package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"
	"golang.org/x/term"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/notebookd/notebookd/cmd/notebookctl/internal/table"
	"github.com/notebookd/notebookd/cmd/notebookctl/internal/words"
	notebookv1 "github.com/notebookd/notebookd/gen/notebook/v1"
)

// changeFlags are the flags of change-image.
type changeFlags struct {
	image, imageType, reason   string
	previous                   bool
	registryUser, passwordFile string
	plan                       bool
	yes                        []string
	wait                       time.Duration
	requestID, etag            string
	output                     string
}

// passwordEnv is the variable that --registry-password-file env reads.
const passwordEnv = "NOTEBOOKCTL_REGISTRY_PASSWORD" //nolint:gosec // the name of a variable, not a secret

func (a *app) changeImageCommand() *cobra.Command {
	f := &changeFlags{}
	cmd := &cobra.Command{
		Use: "change-image NAME", DisableFlagsInUseLine: true,
		Short: a.l.T("Give a notebook another image."),
		Long: a.l.T("Give a notebook another image. First a plan is made and shown, which changes nothing; then each consequence of it has to be accepted: " +
			"on a terminal it is asked for, elsewhere --yes has to name them all. What was planned is what is done: if the notebook changes meanwhile, nothing is done.\n\n" +
			"NAME is a resource name, CLOUD/LOCATION/ID, an id or a display name. The codes of consequences:"),
		Example: strings.Join([]string{
			"notebookctl change-image nb-eiguqichl5hc --image IMAGE --image-type official --plan",
			"notebookctl change-image nb-eiguqichl5hc --image IMAGE --image-type official --reason 'new driver'",
			"notebookctl change-image nb-eiguqichl5hc --image IMAGE --image-type user --yes NOTEBOOK_RUNNING --wait 0s",
			"notebookctl change-image nb-eiguqichl5hc --previous",
		}, "\n"),
		Args: a.atMost(1, 1), ValidArgsFunction: a.completeNotebooks,
		RunE: func(cmd *cobra.Command, args []string) error { return a.changeImage(cmd.Context(), args[0], f) },
	}
	for _, code := range words.WarningCodes() {
		cmd.Long += "\n  " + table.Pad(code, 25) + a.l.Consequence(code)
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.StringVar(&f.image, "image", "", a.l.T("`reference` of the image, or its name where the cloud resolves names"))
	flags.StringVar(&f.imageType, "image-type", "", a.l.T("the cloud's `kind` of image; CoresHub needs one of official, user, custom"))
	flags.BoolVar(&f.previous, "previous", false, a.l.T("take the image from before the last change that succeeded"))
	flags.StringVar(&f.reason, "reason", "", a.l.T("`why` the image is changed, for the history"))
	flags.StringVar(&f.registryUser, "registry-user", "", a.l.T("`user` of a private registry; on a terminal the password is asked for"))
	flags.StringVar(&f.passwordFile, "registry-password-file", "", a.l.T("`file` with the password; - is standard input, env is $NOTEBOOKCTL_REGISTRY_PASSWORD"))
	flags.BoolVar(&f.plan, "plan", false, a.l.T("show the plan and change nothing"))
	flags.StringSliceVar(&f.yes, "yes", nil, a.l.T("`codes` of the consequences that are accepted, with commas between them; those that the change does not have make no difference"))
	flags.DurationVar(&f.wait, "wait", 10*time.Minute, a.l.T("`time` to wait for the end; 0s: not at all"))
	flags.StringVar(&f.requestID, "request-id", "", a.l.T("`id` of the request, a UUID: with that of a call whose answer was lost, nothing is done twice"))
	flags.StringVar(&f.etag, "etag", "", a.l.T("change it only if the notebook still has this `etag`"))
	a.outputFlag(cmd, &f.output, asTable, asJSON, asYAML, asName)
	a.completeFlag(cmd, "yes", a.completeCodes)
	a.completeFlag(cmd, "image-type", fixed("official", "user", "custom"))
	return cmd
}

func (a *app) changeImage(ctx context.Context, name string, f *changeFlags) error {
	if err := a.checkChange(f); err != nil {
		return err
	}
	s, err := a.services()
	if err != nil {
		return err
	}
	credential, err := a.credential(f)
	if err != nil {
		return err
	}
	repeated := f.requestID != ""
	if repeated {
		// Asked for before, and lost or not: what is known of it is the answer.
		changes, err := a.changes(ctx, "request_id = "+quote(strings.ToLower(f.requestID)), 1)
		if err != nil {
			return err
		}
		if len(changes) > 0 {
			return a.takeUp(ctx, name, changes[0], f)
		}
	}
	n, _, err := a.resolve(ctx, name, false)
	if err != nil {
		return err
	}
	if f.previous {
		if err := a.previousImage(ctx, n, f); err != nil {
			return err
		}
	}
	req := &notebookv1.ChangeImageRequest{
		Name: n.GetName(), Image: f.image, ImageType: f.imageType, Reason: f.reason, RegistryCredential: credential, Etag: f.etag, ValidateOnly: true,
	}
	plan, err := a.send(ctx, s, req)
	if err != nil {
		return err
	}
	if f.plan && !isTable(f.output) {
		return a.writeChange(f.output, plan)
	}
	words := a.stderr // what is said on the way
	if isTable(f.output) {
		words = a.stdout
	}
	if err := a.showPlan(words, plan); err != nil || f.plan {
		return err
	}
	if plan.GetChange().GetPhase() == notebookv1.ImageChange_PHASE_UNCHANGED {
		if !isTable(f.output) {
			return a.writeChange(f.output, plan)
		}
		return nil
	}
	accepted, err := a.accept(ctx, plan.GetChange(), f.yes)
	if err != nil {
		return err
	}
	req.ValidateOnly, req.Acknowledge, req.Etag = false, accepted, plan.GetNotebook().GetEtag()
	req.RequestId = strings.ToLower(f.requestID)
	if req.GetRequestId() == "" {
		req.RequestId = uuid.NewString()
	}
	req.Wait = durationpb.New(0) // the change has a name at once, and goes on without us
	_, _ = fmt.Fprintln(words, a.l.T("Request id: %s", req.GetRequestId()))
	answer, err := a.sendSafely(ctx, s, req)
	if err != nil {
		return err
	}
	return a.await(ctx, answer, f)
}

// checkChange checks the flags.
func (a *app) checkChange(f *changeFlags) error {
	t := a.l.T
	switch {
	case f.image == "" && !f.previous:
		return usagef(t("--image says which image it is to be, or --previous"))
	case f.image != "" && f.previous:
		return usagef(t("--image and --previous exclude each other"))
	case f.passwordFile != "" && f.registryUser == "":
		return usagef(t("--registry-password-file needs --registry-user"))
	case f.wait < 0:
		return usagef(t("--wait is not negative"))
	case f.requestID != "" && uuid.Validate(f.requestID) != nil:
		return usagef(t("--request-id is a UUID, such as %s", "0f8fad5b-d9cb-469f-a165-70867728950e"))
	}
	for _, code := range f.yes {
		if !slices.Contains(words.WarningCodes(), code) {
			return usagef(t("%q is no code of a consequence; they are %s", code, a.l.Join(words.WarningCodes())))
		}
	}
	return nil
}

// credential reads the login for a registry. It is shown nowhere.
func (a *app) credential(f *changeFlags) (*notebookv1.RegistryCredential, error) {
	if f.registryUser == "" {
		return nil, nil
	}
	var data []byte
	var err error
	switch f.passwordFile {
	case "":
		in, ok := terminal(a.stdin)
		if !ok {
			return nil, usagef(a.l.T("--registry-user needs --registry-password-file where nobody can be asked"))
		}
		_, _ = fmt.Fprint(a.stderr, a.l.T("Password of %s: ", table.Clean(f.registryUser)))
		data, err = term.ReadPassword(int(in.Fd()))
		a.say("")
	case "-":
		data, err = io.ReadAll(io.LimitReader(a.stdin, 1<<16))
	case "env":
		data = []byte(a.env(passwordEnv))
	default:
		data, err = os.ReadFile(f.passwordFile)
	}
	if err != nil {
		return nil, err
	}
	password := strings.TrimRight(string(data), "\r\n")
	if password == "" {
		return nil, usagef(a.l.T("the password of the registry is empty"))
	}
	return &notebookv1.RegistryCredential{Username: f.registryUser, Password: password}, nil
}

// send makes one call.
func (a *app) send(ctx context.Context, s services, req *notebookv1.ChangeImageRequest) (*notebookv1.ChangeImageResponse, error) {
	ctx, cancel := a.call(ctx)
	defer cancel()
	return s.notebooks.ChangeImage(ctx, req)
}

// sendAttempts is how often a call is made whose answer is lost. The request id makes
// that safe.
const sendAttempts = 4

// sendSafely makes the call that changes something, and says what to do when its
// answer is lost.
func (a *app) sendSafely(ctx context.Context, s services, req *notebookv1.ChangeImageRequest) (*notebookv1.ChangeImageResponse, error) {
	for attempt := 1; ; attempt++ {
		answer, err := a.send(ctx, s, req)
		p := problemOf(err)
		if err == nil || p == nil {
			return answer, err
		}
		lost := p.reason == "" || p.reason == "CALLER_GONE" || p.reason == "DRAINING"
		switch code := p.status.Code(); {
		case p.reason == "OUTCOME_UNKNOWN" && p.metadata["change"] != "":
			c, err := a.change(ctx, p.metadata["change"])
			return &notebookv1.ChangeImageResponse{Change: c}, err
		case lost && code == codes.Unavailable && attempt < sendAttempts:
			timer := time.NewTimer(time.Duration(attempt) * 500 * time.Millisecond)
			select {
			case <-timer.C:
				continue
			case <-ctx.Done():
				timer.Stop()
			}
			fallthrough
		case lost:
			lines, _ := a.explain(p, err)
			a.say("%s", a.l.T("error: %s", strings.Join(lines, "\n  ")))
			a.say("%s", a.l.T("Whether the change was accepted is not known. Run the same command again with --request-id %s: it is done once.", req.GetRequestId()))
			return nil, errTold
		}
		return nil, err
	}
}

// previousImage looks the image up that the notebook had before the last change that
// succeeded.
func (a *app) previousImage(ctx context.Context, n *notebookv1.Notebook, f *changeFlags) error {
	name := quote(n.GetName())
	changes, err := a.changes(ctx, "(notebook = "+name+" OR new_notebook = "+name+") AND phase = SUCCEEDED", 0)
	if err != nil {
		return err
	}
	at := slices.IndexFunc(changes, func(c *notebookv1.ImageChange) bool {
		return c.GetFromImage() != "" && c.GetFromImage() != n.GetImage().GetUri()
	})
	if at < 0 {
		return errors.New(a.l.T("there is no earlier change of %s that succeeded: name the image with --image", n.GetName()))
	}
	f.image = changes[at].GetFromImage()
	if f.imageType != "" {
		return nil
	}
	// Its kind is that of the change that brought it or, for the first image of all,
	// that of other notebooks that have it.
	for _, c := range changes[at+1:] {
		if c.GetToImage() == f.image && c.GetImageType() != "" {
			f.imageType = c.GetImageType()
			return nil
		}
	}
	kinds := map[string]bool{}
	_, err = a.pages(ctx, &notebookv1.ListRequest{Parent: "clouds/" + cloudOf(n.GetName()), Filter: "image.uri = " + quote(f.image)}, maxPage, func(page *notebookv1.ListResponse) error {
		for _, other := range page.GetNotebooks() {
			if other.GetImage().GetUri() == f.image && other.GetImage().GetType() != "" {
				kinds[other.GetImage().GetType()] = true
				f.imageType = other.GetImage().GetType()
			}
		}
		return nil
	})
	if len(kinds) > 1 {
		f.imageType = "" // the server says what it wants
	}
	if err == nil && f.imageType == "" && n.GetImage().GetType() != "" {
		return usagef(a.l.T("of which kind the image %s was is not known: name it with --image-type", f.image))
	}
	return err
}

// showPlan shows what a change would do.
func (a *app) showPlan(w io.Writer, plan *notebookv1.ChangeImageResponse) error {
	t, c := a.l.T, plan.GetChange()
	f := &table.Fields{}
	name := c.GetNotebook()
	if d := plan.GetNotebook().GetDisplayName(); d != "" {
		name += a.l.Pick(" (", "（") + d + a.l.Pick(")", "）")
	}
	f.Add(t("Notebook"), table.Text(name))
	f.Add(t("State"), a.stateCell(plan.GetNotebook().GetState()))
	f.Add(t("From"), table.Text(withType(c.GetFromImage(), plan.GetNotebook().GetImage().GetType())))
	f.Add(t("To"), table.Text(withType(c.GetToImage(), c.GetImageType())))
	if c.GetPhase() == notebookv1.ImageChange_PHASE_UNCHANGED {
		f.Add(t("Result"), table.Text(t("the notebook has this image already; there is nothing to do")))
	}
	for i, step := range c.GetSteps() {
		title := ""
		if i == 0 {
			title = t("Steps")
		}
		f.Add(title, table.Text(fmt.Sprintf("%d. %s", i+1, a.l.Said(step))))
	}
	for i, warning := range c.GetWarnings() {
		title := ""
		if i == 0 {
			title = t("Consequences")
		}
		f.Add(title, table.Cell{Text: warning.GetCode(), Style: table.Yellow})
		f.Add("", table.Text("  "+a.l.Warning(warning)))
	}
	width, colours := 0, false
	if file, ok := terminal(w); ok {
		width, colours = max(0, widthOf(file)), a.env("NO_COLOR") == ""
	}
	return f.Write(w, width, colours)
}

func withType(image, kind string) string {
	if kind == "" {
		return cmp.Or(image, "-")
	}
	return cmp.Or(image, "-") + " [" + kind + "]"
}

// accept returns the codes of the consequences that were accepted: those that --yes
// names and, where somebody can be asked, those that are agreed to. Without all of
// them there is an error. --yes may name more, so that one command fits notebooks that
// run and those that do not; what the change does not have is not sent, and so is not
// accepted should it have it a moment later.
func (a *app) accept(ctx context.Context, c *notebookv1.ImageChange, yes []string) ([]string, error) {
	var accepted, open []string
	for _, w := range c.GetWarnings() {
		if slices.Contains(yes, w.GetCode()) {
			accepted = append(accepted, w.GetCode())
		} else {
			open = append(open, w.GetCode())
		}
	}
	for _, code := range yes {
		if !slices.ContainsFunc(c.GetWarnings(), func(w *notebookv1.ImageChange_Warning) bool { return w.GetCode() == code }) {
			a.say("%s", a.l.T("note: --yes names %s, which this change does not bring with it; that makes no difference", code))
		}
	}
	if len(open) == 0 {
		return accepted, nil
	}
	if !a.asks() {
		all := append(slices.Clone(accepted), open...)
		a.say("%s", a.l.T("error: nothing was done: the change has consequences that were not accepted, and nobody can be asked here: %s", a.l.Join(open)))
		a.say("  %s", a.l.T("If they are acceptable, name all of them: --yes %s", strings.Join(all, ",")))
		return nil, errTold
	}
	in := bufio.NewReader(a.stdin)
	for _, w := range c.GetWarnings() {
		if !slices.Contains(open, w.GetCode()) {
			continue
		}
		agreed, err := a.ask(ctx, in, w)
		if err != nil {
			return nil, err
		}
		if !agreed {
			a.say("%s", a.l.T("Nothing was done."))
			return nil, errTold
		}
		accepted = append(accepted, w.GetCode())
	}
	return accepted, nil
}

// ask asks whether a consequence is accepted. Everything but a clear yes is a no.
func (a *app) ask(ctx context.Context, in *bufio.Reader, w *notebookv1.ImageChange_Warning) (bool, error) {
	_, _ = fmt.Fprintf(a.stderr, "%s [%s] %s ", a.l.Warning(w), w.GetCode(), a.l.T("Accept? [y/N]"))
	type line struct {
		text string
		err  error
	}
	// The goroutine ends with a line or the end of the input; at ctrl-C the process
	// ends before that.
	read := make(chan line, 1)
	go func() {
		text, err := in.ReadString('\n')
		read <- line{text, err}
	}()
	select {
	case got := <-read:
		if got.err != nil && got.text == "" {
			a.say("")
			return false, nil
		}
		switch strings.ToLower(strings.TrimSpace(got.text)) {
		case "y", "yes", "是":
			return true, nil
		default:
			return false, nil
		}
	case <-ctx.Done():
		a.say("")
		a.say("%s", a.l.T("Nothing was done."))
		return false, errTold
	}
}

// takeUp goes on with a change that was asked for before with the same request id.
func (a *app) takeUp(ctx context.Context, name string, c *notebookv1.ImageChange, f *changeFlags) error {
	named := []string{c.GetNotebook(), short(c.GetNotebook()), idOf(c.GetNotebook())}
	if !slices.Contains(named, name) {
		n, _, err := a.resolve(ctx, name, false)
		if err != nil {
			return err
		}
		if n.GetName() != c.GetNotebook() && n.GetName() != c.GetNewNotebook() {
			return errors.New(a.l.T("the request id belongs to %s, a change of %s", c.GetName(), c.GetNotebook()))
		}
	}
	// A cloud that resolves names has made a reference of what was asked for.
	if f.image != "" && f.image != c.GetToImage() && !strings.Contains(c.GetToImage(), f.image) {
		return errors.New(a.l.T("the request id belongs to %s, a change to %s", c.GetName(), c.GetToImage()))
	}
	a.say("%s", a.l.T("The change of this request id was accepted before: %s", c.GetName()))
	if f.plan {
		return a.writeChange(f.output, &notebookv1.ChangeImageResponse{Change: c})
	}
	return a.await(ctx, &notebookv1.ChangeImageResponse{Change: c}, f)
}

// await waits for the end of a change, and tells how it ended.
func (a *app) await(ctx context.Context, answer *notebookv1.ChangeImageResponse, f *changeFlags) error {
	c := answer.GetChange()
	out := a.stderr
	if isTable(f.output) {
		out = a.stdout
	}
	progress := func(c *notebookv1.ImageChange) error {
		_, err := fmt.Fprintf(out, "%s  %s\n", a.clock(), a.l.Phase(c.GetPhase()))
		return err
	}
	_, _ = fmt.Fprintln(out, a.l.T("Change: %s", c.GetName()))
	if err := progress(c); err != nil {
		return err
	}
	var err error
	if !ended(c.GetPhase()) && f.wait > 0 {
		if c, err = a.followChange(ctx, c, f.wait, progress); err != nil {
			return err
		}
	}
	answer.Change = c
	if !ended(c.GetPhase()) {
		if !isTable(f.output) {
			if err := a.writeChange(f.output, answer); err != nil {
				return err
			}
		}
		switch {
		case c.GetPhase() == notebookv1.ImageChange_PHASE_OUTCOME_UNKNOWN:
			return a.outcome(c)
		case f.wait == 0:
			a.say("%s", a.l.T("Follow it with: notebookctl history %s -w", c.GetName()))
			return nil
		case ctx.Err() == nil:
			a.say("%s", a.l.T("The change has not ended within %s.", f.wait))
		}
		a.tellGoesOn(c.GetName())
		return errTold
	}
	if c.GetPhase() == notebookv1.ImageChange_PHASE_SUCCEEDED {
		if n, _, err := a.resolve(ctx, cmp.Or(c.GetNewNotebook(), c.GetNotebook()), false); err == nil { // an extra; it may not be listed yet
			answer.Notebook = n
		}
	}
	if !isTable(f.output) {
		if err := a.writeChange(f.output, answer); err != nil {
			return err
		}
	}
	if err := a.outcome(c); err != nil || !isTable(f.output) {
		return err
	}
	if c.GetNewNotebook() != "" {
		_, err = fmt.Fprintln(a.stdout, a.l.T("The notebook is now %s.", c.GetNewNotebook()))
	} else if s := answer.GetNotebook().GetState(); s != notebookv1.Notebook_STATE_UNSPECIFIED {
		_, err = fmt.Fprintln(a.stdout, a.l.T("The notebook is %s; it runs the image from its next start on.", a.l.State(s)))
	}
	return err
}

// outcome says what an end other than success means.
func (a *app) outcome(c *notebookv1.ImageChange) error {
	switch c.GetPhase() {
	case notebookv1.ImageChange_PHASE_SUCCEEDED, notebookv1.ImageChange_PHASE_UNCHANGED:
		return nil
	case notebookv1.ImageChange_PHASE_OUTCOME_UNKNOWN:
		means, do := a.l.Reason(notebookv1.ErrorReason_ERROR_REASON_OUTCOME_UNKNOWN)
		a.say("%s", a.l.T("error: %s", means))
		a.say("  %s", do)
		a.say("  %s", a.l.T("Follow it with: notebookctl history %s -w", c.GetName()))
		return errTold
	default:
	}
	a.say("%s", a.l.T("error: the change failed: %s", cmp.Or(a.failureText(c), a.l.Phase(c.GetPhase()))))
	if _, do := a.l.Reason(c.GetFailure().GetReason()); do != "" {
		a.say("  %s", do)
	}
	a.say("  %s", a.l.T("All of it: notebookctl history %s", c.GetName()))
	return errTold
}

// tellGoesOn says that a change does not end with the command.
func (a *app) tellGoesOn(name string) {
	a.say("%s", a.l.T("The change goes on without this command. Follow it with: notebookctl history %s -w", name))
}

// writeChange writes an answer of ChangeImage in a form for machines.
func (a *app) writeChange(form string, answer *notebookv1.ChangeImageResponse) error {
	switch {
	case form == asName:
		_, err := fmt.Fprintln(a.stdout, answer.GetChange().GetName())
		return err
	case isTable(form):
		return a.changeFields(answer.GetChange()).Write(a.stdout, a.width(), a.colours())
	}
	return writeMessage(a.stdout, form, answer)
}

func widthOf(file *os.File) int {
	width, _, err := term.GetSize(int(file.Fd()))
	if err != nil {
		return 0
	}
	return width
}
