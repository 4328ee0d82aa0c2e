package main

import (
	"context"
	"errors"
	"regexp"
	"strconv"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/notebookd/notebookd/cmd/notebookctl/internal/table"
	"github.com/notebookd/notebookd/cmd/notebookctl/internal/words"
	notebookv1 "github.com/notebookd/notebookd/gen/notebook/v1"
)

// filterFailure is an error of a call that sent a filter, so that the position in
// it can be shown.
type filterFailure struct {
	err    error
	filter string
}

func (e *filterFailure) Error() string { return e.err.Error() }
func (e *filterFailure) Unwrap() error { return e.err }

// withFilter remembers the filter that a call was made with.
func withFilter(err error, filter string) error {
	if err == nil || filter == "" {
		return err
	}
	return &filterFailure{err, filter}
}

// problem is an error of notebookd, taken apart.
type problem struct {
	status   *status.Status
	reason   string // without prefix; empty when it is not one of notebookd's
	metadata map[string]string
	details  []any
}

// problemOf takes an error apart; nil for one that is not of a call.
func problemOf(err error) *problem {
	var call interface{ GRPCStatus() *status.Status }
	if !errors.As(err, &call) {
		return nil
	}
	p := &problem{status: call.GRPCStatus()}
	p.details = p.status.Details()
	for _, detail := range p.details {
		if info, ok := detail.(*errdetails.ErrorInfo); ok && info.GetDomain() == "notebookd" {
			p.reason, p.metadata = info.GetReason(), info.GetMetadata()
		}
	}
	return p
}

// reasonOf returns the reason of an error of notebookd, or nothing.
func reasonOf(err error) string {
	if p := problemOf(err); p != nil {
		return p.reason
	}
	return ""
}

// tellError tells an error in words and returns the exit code.
func (a *app) tellError(err error) int {
	p := problemOf(err)
	switch {
	case p == nil && errors.Is(err, context.Canceled):
		a.say("%s", a.l.T("interrupted"))
		return exitError
	case p == nil:
		a.say("%s", a.l.T("error: %s", err.Error()))
		return exitError
	}
	lines, code := a.explain(p, err)
	a.say("%s", a.l.T("error: %s", lines[0]))
	for _, line := range lines[1:] {
		a.say("%s", strings.TrimRight("  "+line, " "))
	}
	return code
}

// explain says what an error of a call means and what to do, the first line being
// the shortest answer.
func (a *app) explain(p *problem, err error) ([]string, int) {
	if p.reason == "" {
		return a.explainTransport(p), exitError
	}
	t := a.l.T
	reason := words.ParseReason(p.reason)
	means, do := a.l.Reason(reason)
	if means == "" { // of a newer server
		means = a.l.Said(table.Clean(p.status.Message()))
	}
	lines := []string{means}
	if p.tellsMore(reason) {
		lines = append(lines, t("The server says: %s", a.l.Said(table.Clean(p.status.Message()))))
	}
	lines = append(lines, a.violations(p, err)...)
	if text := a.about(p); text != "" {
		lines = append(lines, text)
	}
	if do != "" {
		lines = append(lines, do)
	}
	if change := p.metadata["change"]; change != "" {
		lines = append(lines, t("Follow it with: notebookctl history %s -w", change))
	}
	if reason == notebookv1.ErrorReason_ERROR_REASON_UNAUTHENTICATED || reason == notebookv1.ErrorReason_ERROR_REASON_PERMISSION_DENIED ||
		reason == notebookv1.ErrorReason_ERROR_REASON_ISSUER_UNAVAILABLE {
		lines = append(lines, a.whoAmI())
	}
	for _, detail := range p.details {
		if retry, ok := detail.(*errdetails.RetryInfo); ok && retry.GetRetryDelay().AsDuration() > 0 {
			lines = append(lines, t("Try again in %s.", a.l.Span(retry.GetRetryDelay().AsDuration())))
		}
	}
	lines = append(lines, "("+p.reason+")")
	code := exitError
	if p.status.Code() == codes.InvalidArgument &&
		(reason == notebookv1.ErrorReason_ERROR_REASON_FILTER_INVALID || reason == notebookv1.ErrorReason_ERROR_REASON_INVALID_FIELD) {
		code = exitUsage
	}
	return lines, code
}

// tellsMore reports whether the server's own words say more than the reason does.
func (p *problem) tellsMore(reason notebookv1.ErrorReason) bool {
	switch reason {
	case notebookv1.ErrorReason_ERROR_REASON_CLOUD_REJECTED, notebookv1.ErrorReason_ERROR_REASON_CLOUD_UNAVAILABLE,
		notebookv1.ErrorReason_ERROR_REASON_OPERATION_NOT_SUPPORTED, notebookv1.ErrorReason_ERROR_REASON_STORE_UNAVAILABLE,
		notebookv1.ErrorReason_ERROR_REASON_UNAUTHENTICATED, notebookv1.ErrorReason_ERROR_REASON_RATE_LIMITED:
		return true
	default:
		return false
	}
}

// about says what an error is about.
func (a *app) about(p *problem) string {
	var parts []string
	for _, item := range []struct{ key, name string }{
		{"notebook", a.l.T("notebook")}, {"cloud", a.l.T("cloud")}, {"location", a.l.T("location")}, {"cloud_code", a.l.T("the cloud's code")},
	} {
		value := p.metadata[item.key]
		if value == "" || p.metadata["notebook"] != "" && (item.key == "cloud" || item.key == "location") {
			continue // the name of a notebook says both
		}
		parts = append(parts, item.name+" "+table.Clean(value))
	}
	return strings.Join(parts, a.l.Pick(", ", "，"))
}

var positionForm = regexp.MustCompile(`^at position (\d+): `)

// violations tells which fields are wrong, and where.
func (a *app) violations(p *problem, err error) []string {
	var lines []string
	for _, detail := range p.details {
		bad, ok := detail.(*errdetails.BadRequest)
		if !ok {
			continue
		}
		for _, v := range bad.GetFieldViolations() {
			field, text := v.GetField(), table.Clean(v.GetDescription())
			if flag, ok := fieldFlags[field]; ok {
				field = flag
			}
			found := positionForm.FindStringSubmatch(text)
			var with *filterFailure
			if found == nil || !errors.As(err, &with) || v.GetField() != "filter" {
				lines = append(lines, field+a.l.Pick(": ", "：")+a.l.Said(text))
				continue
			}
			at, _ := strconv.Atoi(found[1]) // the form has digits only; too many are beyond the end
			at = min(at, len(with.filter))
			lines = append(lines,
				field+a.l.Pick(": ", "：")+a.l.Said(strings.TrimPrefix(text, found[0])),
				"",
				"  "+table.Clean(with.filter),
				"  "+strings.Repeat(" ", table.Width(table.Clean(with.filter[:at])))+"^",
				"")
		}
	}
	return lines
}

// fieldFlags names the flags that fields of requests come from.
var fieldFlags = map[string]string{
	"filter": "--filter", "order_by": "--order-by", "max_staleness": "--max-staleness", "image": "--image", "image_type": "--image-type",
	"request_id": "--request-id", "etag": "--etag", "reason": "--reason", "registry_credential.username": "--registry-user",
	"registry_credential": "--registry-user", "registry_credential.password": "--registry-password-file", "wait": "--wait", "acknowledge": "--yes",
}

// whoAmI says what was sent to prove who calls.
func (a *app) whoAmI() string {
	if sent := a.where.Credentials(a.l); sent != "" {
		return a.l.T("%s was called with %s.", a.where.In(a.l), sent)
	}
	return a.l.T("%s was called without any credentials.", a.where.In(a.l))
}

// transportForm is what gRPC puts around the error of a connection.
var transportForm = regexp.MustCompile(`^connection error: desc = "(?:transport: )?(?:Error while dialing: )?(.*)"$`)

// explainTransport explains what went wrong before notebookd could answer.
func (a *app) explainTransport(p *problem) []string {
	t, text := a.l.T, p.status.Message()
	has := func(parts ...string) bool {
		for _, part := range parts {
			if strings.Contains(text, part) {
				return true
			}
		}
		return false
	}
	reason := table.Clean(text)
	if m := transportForm.FindStringSubmatch(reason); m != nil {
		reason = m[1]
	}
	reason = a.l.Reported(reason)
	switch p.status.Code() {
	case codes.DeadlineExceeded:
		means, do := a.l.Reason(notebookv1.ErrorReason_ERROR_REASON_CALLER_GONE)
		return []string{means, do, t("The server is %s.", a.where.In(a.l))}
	case codes.Canceled:
		return []string{t("interrupted")}
	case codes.Unauthenticated:
		return []string{t("The credentials could not be sent."), reason, a.whoAmI()}
	case codes.Unimplemented:
		return []string{t("%s is no notebookd, or one of another version.", a.where.In(a.l)), reason}
	case codes.Unavailable:
	default:
		return []string{t("The call failed: %s", reason), t("The server is %s.", a.where.In(a.l))}
	}
	lines := []string{t("%s cannot be reached.", a.where.In(a.l)), reason}
	switch {
	case has("connection refused"):
		lines = append(lines, t("Nothing listens there. Start the server (`make run`), or name another one with --server or a context."))
	case has("certificate signed by unknown authority", "certificate is not trusted"):
		lines = append(lines, t("The server's certificate is of an authority that is not known here: name the authority's certificate with --ca."))
	case has("certificate is valid for", "cannot validate certificate", "certificate is not valid for"):
		lines = append(lines, t("The server's certificate is for another name: call it by that name, or set the server name of the context."))
	case has("certificate required", "bad certificate"):
		lines = append(lines, t("The server wants a client certificate, or another one: --cert and --key."))
	case has("first record does not look like a TLS handshake"):
		lines = append(lines, t("The server speaks plain text, not TLS: if that is as it should be, say --plaintext."))
	case has("looked like an HTTP/1.1 header"):
		lines = append(lines, t("HTTP is served there, not gRPC: name the server's gRPC address, whose port is usually 9090."))
	case has("error reading server preface", "EOF", "connection reset") && a.where.Plain():
		lines = append(lines, t("It was called in plain text; perhaps it speaks TLS: say --plaintext=false, and --ca with the certificate of its authority."))
	case has("no such host", "produced zero addresses"):
		lines = append(lines, t("There is no such host. Is the address right?"))
	}
	return lines
}
