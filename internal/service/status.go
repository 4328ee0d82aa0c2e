package service

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	notebookv1 "github.com/notebookd/notebookd/gen/notebook/v1"
	"github.com/notebookd/notebookd/internal/imagechange"
	"github.com/notebookd/notebookd/internal/inventory"
	"github.com/notebookd/notebookd/internal/upstream"
)

// Domain is the domain of every ErrorInfo.
const Domain = "notebookd"

// FieldViolation names a field of a request and what is wrong with it.
type FieldViolation struct{ Field, Problem string }

// InvalidFields is the error for a request with fields that must not be so.
func InvalidFields(violations ...FieldViolation) error {
	return invalid(notebookv1.ErrorReason_ERROR_REASON_INVALID_FIELD, violations...)
}

// ErrorWith is Error with more details.
func ErrorWith(code codes.Code, reason notebookv1.ErrorReason, message string, details ...protoadapt.MessageV1) error {
	return newStatus(code, reason, message, nil, details...)
}

// Error is an error with one ErrorInfo.
func Error(code codes.Code, reason notebookv1.ErrorReason, message string) error {
	return newStatus(code, reason, message, nil)
}

func newStatus(code codes.Code, reason notebookv1.ErrorReason, message string, metadata map[string]string, details ...protoadapt.MessageV1) error {
	info := &errdetails.ErrorInfo{Reason: strings.TrimPrefix(reason.String(), "ERROR_REASON_"), Domain: Domain, Metadata: metadata}
	st, err := status.New(code, message).WithDetails(append([]protoadapt.MessageV1{info}, details...)...)
	if err != nil { // only for code OK, which nobody asks for
		return status.Error(codes.Internal, message)
	}
	return st.Err()
}

func invalid(reason notebookv1.ErrorReason, violations ...FieldViolation) error {
	bad := &errdetails.BadRequest{}
	texts := make([]string, 0, len(violations))
	for _, v := range violations {
		bad.FieldViolations = append(bad.FieldViolations, &errdetails.BadRequest_FieldViolation{Field: v.Field, Description: v.Problem})
		texts = append(texts, v.Field+": "+v.Problem)
	}
	return newStatus(codes.InvalidArgument, reason, strings.Join(texts, "; "), nil, bad)
}

func notFound(reason notebookv1.ErrorReason, message string, metadata map[string]string) error {
	return newStatus(codes.NotFound, reason, message, metadata)
}

// meaning is what a kind of cloud failure is to a caller.
type meaning struct {
	code    codes.Code
	reason  notebookv1.ErrorReason
	message string
}

var meanings = map[upstream.Kind]meaning{
	upstream.KindBadResponse:   {codes.Internal, notebookv1.ErrorReason_ERROR_REASON_CLOUD_BAD_RESPONSE, "the cloud's answer could not be understood"},
	upstream.KindUnavailable:   {codes.Unavailable, notebookv1.ErrorReason_ERROR_REASON_CLOUD_UNAVAILABLE, "the cloud cannot be reached"},
	upstream.KindTimeout:       {codes.Unavailable, notebookv1.ErrorReason_ERROR_REASON_CLOUD_TIMEOUT, "the cloud did not answer in time"},
	upstream.KindFault:         {codes.Internal, notebookv1.ErrorReason_ERROR_REASON_CLOUD_UNAVAILABLE, "the cloud reports an internal error"},
	upstream.KindThrottled:     {codes.ResourceExhausted, notebookv1.ErrorReason_ERROR_REASON_CLOUD_RATE_LIMITED, "the cloud says that the account calls too often"},
	upstream.KindDenied:        {codes.Internal, notebookv1.ErrorReason_ERROR_REASON_CLOUD_CREDENTIALS_REJECTED, "the cloud refuses the credentials that notebookd is configured with"},
	upstream.KindNotFound:      {codes.NotFound, notebookv1.ErrorReason_ERROR_REASON_NOTEBOOK_NOT_FOUND, "the cloud has no such notebook"},
	upstream.KindImageNotFound: {codes.NotFound, notebookv1.ErrorReason_ERROR_REASON_IMAGE_NOT_FOUND, "the cloud has no such image"},
	upstream.KindInvalid:       {codes.InvalidArgument, notebookv1.ErrorReason_ERROR_REASON_CLOUD_REJECTED, "the cloud calls the request invalid"},
	upstream.KindConflict:      {codes.FailedPrecondition, notebookv1.ErrorReason_ERROR_REASON_CLOUD_REJECTED, "the cloud does not allow this in the present state of the notebook or account"},
	upstream.KindRejected:      {codes.Internal, notebookv1.ErrorReason_ERROR_REASON_CLOUD_REJECTED, "the cloud refused with a code that it does not document"},
	upstream.KindUnsupported:   {codes.Unimplemented, notebookv1.ErrorReason_ERROR_REASON_OPERATION_NOT_SUPPORTED, "the cloud has no such operation"},
	upstream.KindDisabled:      {codes.FailedPrecondition, notebookv1.ErrorReason_ERROR_REASON_LOCATION_DISABLED, "the account cannot use this location"},
	upstream.KindCircuitOpen:   {codes.Unavailable, notebookv1.ErrorReason_ERROR_REASON_CIRCUIT_OPEN, "the circuit breaker of this cloud is open; nothing was sent"},
	upstream.KindBudget:        {codes.ResourceExhausted, notebookv1.ErrorReason_ERROR_REASON_CALL_BUDGET_SPENT, "the call budget of this account is spent; nothing was sent"},
}

// toStatus is the one mapping from errors to what callers see. Handlers end
// with it. What it does not know becomes INTERNAL with a fixed text; the log
// has the rest.
func (s *Service) toStatus(ctx context.Context, err error, metadata map[string]string) error {
	if err == nil {
		return nil
	}
	if _, ok := status.FromError(err); ok {
		return err
	}
	var (
		filtered *filterError
		ordered  *orderError
		field    *imagechange.FieldError
		warnings *imagechange.WarningsError
		unknown  *imagechange.OutcomeUnknownError
		another  *imagechange.InProgressError
		store    *imagechange.StoreError
		cloud    *upstream.Error
	)
	switch {
	case errors.As(err, &filtered):
		return invalid(notebookv1.ErrorReason_ERROR_REASON_FILTER_INVALID, FieldViolation{"filter", filtered.Error()})
	case errors.As(err, &ordered):
		return invalid(notebookv1.ErrorReason_ERROR_REASON_FILTER_INVALID, FieldViolation{"order_by", ordered.Error()})
	case errors.As(err, &field):
		return InvalidFields(FieldViolation{field.Field, field.Problem})
	case errors.As(err, &warnings):
		failure := &errdetails.PreconditionFailure{}
		for _, w := range warnings.Warnings {
			failure.Violations = append(failure.Violations, &errdetails.PreconditionFailure_Violation{
				Type: w.GetCode(), Subject: metadata["notebook"], Description: w.GetMessage(),
			})
		}
		return newStatus(codes.FailedPrecondition, notebookv1.ErrorReason_ERROR_REASON_WARNINGS_NOT_ACKNOWLEDGED,
			"the change has consequences that have to be named in acknowledge", metadata, failure)
	case errors.As(err, &unknown):
		return newStatus(codes.Unknown, notebookv1.ErrorReason_ERROR_REASON_OUTCOME_UNKNOWN,
			"the change was sent, but what became of it is not known yet; ask for the change until it is settled, and do not send another",
			with(metadata, "change", unknown.Change))
	case errors.Is(err, imagechange.ErrNotFound):
		return notFound(notebookv1.ErrorReason_ERROR_REASON_NOTEBOOK_NOT_FOUND, "no such notebook is known", metadata)
	case errors.Is(err, imagechange.ErrEtag):
		return newStatus(codes.Aborted, notebookv1.ErrorReason_ERROR_REASON_ETAG_MISMATCH,
			"the notebook has changed since it was read; read it again", metadata)
	case errors.As(err, &another):
		return newStatus(codes.Aborted, notebookv1.ErrorReason_ERROR_REASON_CHANGE_IN_PROGRESS,
			"another image change of the notebook is under way; wait for its end", with(metadata, "change", another.Change))
	case errors.Is(err, imagechange.ErrReused):
		return invalid(notebookv1.ErrorReason_ERROR_REASON_REQUEST_ID_REUSED, FieldViolation{"request_id", "was used with other arguments; make a new one"})
	case errors.Is(err, imagechange.ErrBusy):
		return newStatus(codes.FailedPrecondition, notebookv1.ErrorReason_ERROR_REASON_CLOUD_REJECTED,
			"the notebook is being made or stopped; try again when that has ended", metadata)
	case errors.As(err, &store):
		s.log.ErrorContext(ctx, "image change not stored", "error", err)
		return newStatus(codes.Unavailable, notebookv1.ErrorReason_ERROR_REASON_STORE_UNAVAILABLE, "the change could not be stored; nothing was sent", metadata,
			&errdetails.RetryInfo{RetryDelay: durationpb.New(time.Second)})
	case errors.Is(err, imagechange.ErrNotSupported):
		return newStatus(codes.Unimplemented, notebookv1.ErrorReason_ERROR_REASON_OPERATION_NOT_SUPPORTED,
			"this cloud cannot change the image of a notebook", metadata)
	case errors.As(err, &cloud):
		return cloudStatus(cloud, metadata)
	case errors.Is(err, inventory.ErrToken):
		return invalid(notebookv1.ErrorReason_ERROR_REASON_RESUME_TOKEN_INVALID, FieldViolation{"resume_token", "not made here for this parent and filter"})
	case errors.Is(err, context.Canceled):
		return Error(codes.Canceled, notebookv1.ErrorReason_ERROR_REASON_CALLER_GONE, "the caller left")
	case errors.Is(err, context.DeadlineExceeded):
		return Error(codes.DeadlineExceeded, notebookv1.ErrorReason_ERROR_REASON_CALLER_GONE, "the caller's deadline passed")
	}
	s.log.ErrorContext(ctx, "unexpected error", "error", err)
	return Error(codes.Internal, notebookv1.ErrorReason_ERROR_REASON_INTERNAL, "internal error; the log of notebookd has the details")
}

// with returns metadata with one more entry.
func with(metadata map[string]string, key, value string) map[string]string {
	out := maps.Clone(metadata)
	if out == nil {
		out = map[string]string{}
	}
	out[key] = value
	return out
}

// cloudStatus tells a caller of a cloud's failure in our words.
func cloudStatus(e *upstream.Error, metadata map[string]string) error {
	m := meanings[e.Kind]
	all := map[string]string{}
	for k, v := range metadata {
		all[k] = v
	}
	if e.Cloud != "" {
		all["cloud"] = e.Cloud
	}
	if e.Location != "" {
		all["location"] = e.Location
	}
	if e.Code != "" {
		all["cloud_code"] = e.Code
	}
	var details []protoadapt.MessageV1
	if retry := retryAfter(e); retry > 0 {
		details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(retry)})
	}
	return newStatus(m.code, m.reason, m.message, all, details...)
}

// retryAfter is when a caller may try again: what the cloud or breaker says, or
// a little later where trying again makes sense at all.
func retryAfter(e *upstream.Error) time.Duration {
	if e.RetryAfter > 0 {
		return e.RetryAfter
	}
	switch e.Kind {
	case upstream.KindUnavailable, upstream.KindTimeout, upstream.KindThrottled, upstream.KindBudget, upstream.KindCircuitOpen:
		return 5 * time.Second
	default:
		return 0
	}
}

// failureReason and failureText tell why a location or cloud is not read.
func failureReason(f *inventory.Failure) notebookv1.ErrorReason {
	switch {
	case f == nil:
		return notebookv1.ErrorReason_ERROR_REASON_UNSPECIFIED
	case f.Store:
		return notebookv1.ErrorReason_ERROR_REASON_STORE_UNAVAILABLE
	default:
		return meanings[f.Kind].reason
	}
}

func failureText(f *inventory.Failure) string {
	switch {
	case f == nil:
		return ""
	case f.Store:
		return "the log cannot be written"
	case f.Message != "":
		return f.Message
	default:
		return meanings[f.Kind].message
	}
}

// notFresh is the error for a List whose max_staleness none of the selected
// locations could meet. err is what became of one of them.
func notFresh(err error) error {
	m, metadata, retry := meaning{reason: notebookv1.ErrorReason_ERROR_REASON_STORE_UNAVAILABLE}, map[string]string{}, 5*time.Second
	if e, ok := errors.AsType[*upstream.Error](err); ok {
		m = meanings[e.Kind]
		metadata["cloud"], metadata["location"] = e.Cloud, e.Location
		if e.Code != "" {
			metadata["cloud_code"] = e.Code
		}
		retry = max(retryAfter(e), time.Second)
	}
	return newStatus(codes.Unavailable, m.reason, "no selected location could be read as fresh as max_staleness asks; without it, the last known notebooks are returned",
		metadata, &errdetails.RetryInfo{RetryDelay: durationpb.New(retry)})
}

// nothingKnown is the error for a List of which not one location was ever read.
func nothingKnown(locations []*inventory.Location, clouds []*inventory.Cloud, sc scope) error {
	var failure *inventory.Failure
	names := make([]string, 0, len(locations)+len(clouds))
	for _, c := range clouds {
		names = append(names, inventory.CloudName(c.Name))
		failure = c.Failure
	}
	for _, l := range locations {
		names = append(names, l.Name)
		if l.Failure != nil {
			failure = l.Failure
		}
	}
	reason := notebookv1.ErrorReason_ERROR_REASON_CLOUD_UNAVAILABLE
	metadata := sc.metadata()
	if failure != nil {
		reason = failureReason(failure)
		if failure.Code != "" {
			metadata["cloud_code"] = failure.Code
		}
	}
	return newStatus(codes.Unavailable, reason, fmt.Sprintf("nothing is known yet of %s", strings.Join(names, ", ")), metadata,
		&errdetails.RetryInfo{RetryDelay: durationpb.New(time.Second)})
}
