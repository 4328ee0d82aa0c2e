package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"github.com/grpc-ecosystem/grpc-gateway/v2/utilities"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	notebookv1 "github.com/notebookd/notebookd/gen/notebook/v1"
	"github.com/notebookd/notebookd/internal/service"
)

// local answers in the process, as grpc would, what would mostly cost to decode and
// encode again what is JSON already.
type local interface {
	list(context.Context, *notebookv1.ListRequest) (*service.Listing, error)
	// watch sends frames until it ends. A send that fails ends it; see
	// service.WatchInProcess.
	watch(ctx context.Context, req *notebookv1.WatchRequest, send func(*service.Frame) error) error
	// slowReader is for how long a reader of a watch may not take a frame.
	slowReader() time.Duration
}

// newGateway returns the REST API: every call goes through conn to the services,
// except for List and Watch, which here answers.
// withPeer says who is at the other end of a request.
func newGateway(ctx context.Context, conn grpc.ClientConnInterface, here local, withPeer func(*http.Request) context.Context) (http.Handler, error) {
	parseStrictly()
	mux := runtime.NewServeMux(
		runtime.WithMarshalerOption(runtime.MIMEWildcard, &jsonMarshaler{runtime.JSONPb{
			// An unknown field is an error, not something to be ignored.
			UnmarshalOptions: protojson.UnmarshalOptions{DiscardUnknown: false},
		}}),
		runtime.WithForwardResponseRewriter(func(ctx context.Context, resp proto.Message) (any, error) {
			if e, ok := ctx.Value(exchangeKey{}).(*exchange); ok && e.listing != nil && resp == proto.Message(e.stands) {
				return e, nil
			}
			return resp, nil
		}),
		runtime.WithWriteContentLength(),
		runtime.WithMetadata(traceMetadata),
		runtime.WithErrorHandler(writeError),
		runtime.WithRoutingErrorHandler(writeRoutingError),
		// Authorization is passed on by the library all the same, under its own name.
		runtime.WithIncomingHeaderMatcher(func(string) (string, bool) { return "", false }),
		runtime.WithOutgoingHeaderMatcher(func(string) (string, bool) { return "", false }),
	)
	if err := errors.Join(
		notebookv1.RegisterNotebookServiceHandlerClient(ctx, mux, localClient{notebookv1.NewNotebookServiceClient(conn), here}),
		notebookv1.RegisterCloudServiceHandlerClient(ctx, mux, notebookv1.NewCloudServiceClient(conn)),
		notebookv1.RegisterImageChangeServiceHandlerClient(ctx, mux, notebookv1.NewImageChangeServiceClient(conn)),
		notebookv1.RegisterCallerServiceHandlerClient(ctx, mux, notebookv1.NewCallerServiceClient(conn)),
	); err != nil {
		return nil, fmt.Errorf("gateway: %w", err)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		e := &exchange{w: w, r: r}
		if r.ProtoMajor < 2 {
			defer e.release()
		}
		mux.ServeHTTP(w, r.WithContext(context.WithValue(withPeer(r), exchangeKey{}, e)))
	}), nil
}

// exchange is one request and its answer. It travels with the request through the
// generated handler, which parses it and passes on nothing but messages, to
// localClient.
type exchange struct {
	w http.ResponseWriter
	r *http.Request

	// listing is the answer to List, which the rewriter of responses takes in place
	// of the message that stands for it.
	listing *service.Listing
	stands  *notebookv1.ListResponse
	text    *[]byte // of the answer, from texts; nil before there is one
}

// texts are *[]byte to write answers to. HTTP/1 has written a text when the handler
// returns. HTTP/2 may not have when its stream was cut, so there they are not used
// again.
var texts = sync.Pool{New: func() any { return new([]byte) }}

// maxKept is the largest text that is kept for another request.
const maxKept = 1 << 20

// release makes room for another request, once the answer is written.
func (e *exchange) release() {
	if e.text != nil && cap(*e.text) <= maxKept {
		texts.Put(e.text)
	}
}

type exchangeKey struct{}

// localClient is the gateway's client of NotebookService.
type localClient struct {
	notebookv1.NotebookServiceClient
	here local
}

// List implements notebookv1.NotebookServiceClient. What it returns is empty: the
// answer is in the exchange.
func (c localClient) List(ctx context.Context, req *notebookv1.ListRequest, opts ...grpc.CallOption) (*notebookv1.ListResponse, error) {
	e, ok := ctx.Value(exchangeKey{}).(*exchange)
	if !ok {
		return c.NotebookServiceClient.List(ctx, req, opts...)
	}
	listing, err := c.here.list(ctx, req)
	if err != nil {
		return nil, err
	}
	e.listing, e.stands = listing, &notebookv1.ListResponse{}
	return e.stands, nil
}

// Watch implements notebookv1.NotebookServiceClient. It returns once the answer is
// written, with a stream that has nothing to add, or with the error that came before
// the answer began: the generated handler answers that as any other.
func (c localClient) Watch(ctx context.Context, req *notebookv1.WatchRequest, opts ...grpc.CallOption) (grpc.ServerStreamingClient[notebookv1.WatchResponse], error) {
	e, ok := ctx.Value(exchangeKey{}).(*exchange)
	if !ok {
		return c.NotebookServiceClient.Watch(ctx, req, opts...)
	}
	if err := e.serveWatch(ctx, c.here, req); err != nil {
		return nil, err
	}
	return endedStream{}, nil
}

// endedStream is a watch that is over. The generated handler asks for its header
// and its frames, and for nothing else.
type endedStream struct {
	grpc.ServerStreamingClient[notebookv1.WatchResponse]
}

// Header implements grpc.ClientStream.
func (endedStream) Header() (metadata.MD, error) { return nil, nil }

// Recv implements grpc.ServerStreamingClient.
func (endedStream) Recv() (*notebookv1.WatchResponse, error) { return nil, io.EOF }

// jsonMarshaler is protojson, and what is JSON already.
type jsonMarshaler struct{ runtime.JSONPb }

// Marshal implements runtime.Marshaler.
func (m *jsonMarshaler) Marshal(v any) ([]byte, error) {
	if e, ok := v.(*exchange); ok {
		e.text = texts.Get().(*[]byte)
		text, err := e.listing.AppendJSON((*e.text)[:0])
		if err == nil {
			*e.text = text
		}
		return text, err
	}
	return m.JSONPb.Marshal(v)
}

// NewDecoder implements runtime.Marshaler. A body that is more than one JSON
// value is refused: what follows the first would be ignored.
func (m *jsonMarshaler) NewDecoder(r io.Reader) runtime.Decoder {
	return runtime.DecoderFunc(func(v any) error {
		data, err := io.ReadAll(r)
		if err != nil {
			return err
		}
		if len(bytes.TrimSpace(data)) == 0 {
			return io.EOF
		}
		if message, ok := v.(proto.Message); ok {
			return m.UnmarshalOptions.Unmarshal(data, message)
		}
		return m.Unmarshal(data, v)
	})
}

// strictQuery refuses query parameters that the request message does not have.
type strictQuery struct{}

var defaultQuery runtime.DefaultQueryParser

// parseStrictly makes strictQuery the parser of all gateways. It looks like an
// option of one gateway, but is a variable of the library's.
var parseStrictly = sync.OnceFunc(func() { runtime.SetQueryParameterParser(strictQuery{})(nil) })

// Parse implements runtime.QueryParameterParser.
func (strictQuery) Parse(msg proto.Message, values url.Values, filter *utilities.DoubleArray) error {
	for name, texts := range values {
		if !hasField(msg.ProtoReflect().Descriptor(), strings.Split(name, ".")) {
			return queryError{strings.ToValidUTF8(name, "?"), "no such query parameter"}
		}
		if slices.ContainsFunc(texts, func(text string) bool { return !utf8.ValidString(text) }) {
			return queryError{name, "is not UTF-8"}
		}
	}
	if err := defaultQuery.Parse(msg, values, filter); err != nil {
		return queryError{fieldOf(err, values), "has a value of the wrong form"}
	}
	return nil
}

// queryError is a query parameter that must not be so. The generated handlers
// keep only the text of an error, so invalidRequest reads the text.
type queryError struct{ field, problem string }

func (e queryError) Error() string { return fmt.Sprintf("query parameter %q: %s", e.field, e.problem) }

var queryProblem = regexp.MustCompile(`query parameter ("[^"]*"): (.*)$`)

// fieldOf finds the parameter that a parser's error speaks of.
func fieldOf(err error, values url.Values) string {
	names := make([]string, 0, len(values))
	for name := range values {
		if strings.Contains(err.Error(), fmt.Sprintf("%q", name)) || len(values) == 1 {
			return name
		}
		names = append(names, name)
	}
	slices.Sort(names)
	return strings.Join(names, " or ")
}

func hasField(message protoreflect.MessageDescriptor, path []string) bool {
	if message == nil || len(path) == 0 {
		return len(path) == 0
	}
	field := message.Fields().ByJSONName(path[0])
	if field == nil {
		field = message.Fields().ByName(protoreflect.Name(path[0]))
	}
	if field == nil {
		return false
	}
	return len(path) == 1 || hasField(field.Message(), path[1:])
}

var unknownField = regexp.MustCompile(`unknown field "([^"]*)"`)

// writeError answers with a google.rpc.Status as JSON. Errors that the gateway
// made itself, before the server was asked, get the ErrorInfo that every error
// of this API has.
func writeError(ctx context.Context, mux *runtime.ServeMux, m runtime.Marshaler, w http.ResponseWriter, r *http.Request, err error) {
	err = complete(err)
	if status.Code(err) == codes.Unauthenticated {
		writeStatus(w, err) // with a challenge of the right form
		return
	}
	runtime.DefaultHTTPErrorHandler(ctx, mux, m, w, r, err)
}

func complete(err error) error {
	if custom, ok := errors.AsType[*runtime.HTTPStatusError](err); ok {
		return &runtime.HTTPStatusError{HTTPStatus: custom.HTTPStatus, Err: complete(custom.Err)}
	}
	st, _ := status.FromError(err)
	for _, detail := range st.Details() {
		if _, ok := detail.(*errdetails.ErrorInfo); ok {
			return err
		}
	}
	if strings.Contains(st.Message(), "invalid UTF-8") { // of the path: the request could not even be sent
		return service.InvalidFields(service.FieldViolation{Field: "path", Problem: "is not UTF-8"})
	}
	reason, message := notebookv1.ErrorReason_ERROR_REASON_INTERNAL, "internal error; the log of notebookd has the details"
	switch st.Code() {
	case codes.InvalidArgument:
		return invalidRequest(st.Message())
	case codes.NotFound, codes.Unimplemented:
		reason, message = notebookv1.ErrorReason_ERROR_REASON_OPERATION_NOT_SUPPORTED, "no such path, or not with this method"
	case codes.Unavailable:
		reason, message = notebookv1.ErrorReason_ERROR_REASON_DRAINING, "the server is stopping; try another one"
	case codes.Canceled, codes.DeadlineExceeded:
		reason, message = notebookv1.ErrorReason_ERROR_REASON_CALLER_GONE, "the caller left, or its deadline passed"
	default:
	}
	return service.Error(st.Code(), reason, message)
}

// invalidRequest says what is wrong with a query or a JSON body, without
// quoting the body: it may hold a password.
func invalidRequest(text string) error {
	if match := queryProblem.FindStringSubmatch(text); match != nil {
		field, _ := strconv.Unquote(match[1])
		return service.InvalidFields(service.FieldViolation{Field: field, Problem: match[2]})
	}
	v := service.FieldViolation{Field: "body", Problem: "is not the JSON of the request"}
	if match := unknownField.FindStringSubmatch(text); match != nil {
		v = service.FieldViolation{Field: match[1], Problem: "no such field"}
	}
	return service.InvalidFields(v)
}

// writeRoutingError answers when no route fits.
func writeRoutingError(ctx context.Context, mux *runtime.ServeMux, m runtime.Marshaler, w http.ResponseWriter, r *http.Request, code int) {
	grpcCode := codes.NotFound
	switch code {
	case http.StatusMethodNotAllowed:
		grpcCode = codes.Unimplemented
	case http.StatusBadRequest:
		grpcCode = codes.InvalidArgument
	}
	err := &runtime.HTTPStatusError{HTTPStatus: code, Err: status.Error(grpcCode, http.StatusText(code))}
	writeError(ctx, mux, m, w, r, err)
}
