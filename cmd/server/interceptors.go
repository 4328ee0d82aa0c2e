package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"time"

	"buf.build/go/protovalidate"
	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/recovery"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	notebookv1 "github.com/notebookd/notebookd/gen/notebook/v1"
	"github.com/notebookd/notebookd/internal/service"
)

// unaryDeadline bounds a unary call whose caller gave no shorter deadline.
const unaryDeadline = time.Minute

// interceptor is one concern, for both kinds of call. Either may be nil.
type interceptor struct {
	unary  grpc.UnaryServerInterceptor
	stream grpc.StreamServerInterceptor
}

// interceptors returns the chain, outermost first. Recovery is inside metrics
// and log, so that both see a panic as the INTERNAL that the caller gets. Whether a
// request is well formed is told only to those who may make one.
func interceptors(calls *calls, guard *guard, validator protovalidate.Validator, log *slog.Logger) []interceptor {
	onPanic := recovery.WithRecoveryHandlerContext(func(ctx context.Context, p any) error {
		log.ErrorContext(ctx, "panic", "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
		return service.Error(codes.Internal, notebookv1.ErrorReason_ERROR_REASON_INTERNAL, "internal error; the log of notebookd has the details")
	})
	return []interceptor{
		{calls.unary, calls.stream},
		{unary: deadline},
		{recovery.UnaryServerInterceptor(onPanic), recovery.StreamServerInterceptor(onPanic)},
		{guard.unary, guard.stream},
		{validateUnary(validator), validateStream(validator)},
	}
}

// chain makes one interceptor of the list.
func chain(list []interceptor) interceptor {
	return interceptor{
		unary: func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
			for _, i := range slices.Backward(list) {
				if i.unary == nil {
					continue
				}
				next := handler
				handler = func(ctx context.Context, req any) (any, error) { return i.unary(ctx, req, info, next) }
			}
			return handler(ctx, req)
		},
		stream: func(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
			for _, i := range slices.Backward(list) {
				if i.stream == nil {
					continue
				}
				next := handler
				handler = func(srv any, stream grpc.ServerStream) error { return i.stream(srv, stream, info, next) }
			}
			return handler(srv, stream)
		},
	}
}

func deadline(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	ctx, cancel := context.WithTimeout(ctx, unaryDeadline)
	defer cancel()
	return handler(ctx, req)
}

func validateUnary(validator protovalidate.Validator) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		if err := validate(validator, req); err != nil {
			return nil, err
		}
		return handler(ctx, req)
	}
}

func validateStream(validator protovalidate.Validator) grpc.StreamServerInterceptor {
	return func(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
		return handler(srv, &validatingStream{stream, validator})
	}
}

// validatingStream checks every message that a stream receives.
type validatingStream struct {
	grpc.ServerStream
	validator protovalidate.Validator
}

// RecvMsg implements grpc.ServerStream.
func (s *validatingStream) RecvMsg(m any) error {
	if err := s.ServerStream.RecvMsg(m); err != nil {
		return err
	}
	return validate(s.validator, m)
}

// validate checks a request against the rules in the contract.
func validate(validator protovalidate.Validator, req any) error {
	message, ok := req.(proto.Message)
	if !ok {
		return nil
	}
	err := validator.Validate(message)
	if err == nil {
		return nil
	}
	problems, ok := errors.AsType[*protovalidate.ValidationError](err)
	if !ok {
		return fmt.Errorf("rules of the contract: %w", err) // a fault of ours
	}
	var violations []service.FieldViolation
	for _, v := range problems.Violations {
		violations = append(violations, service.FieldViolation{
			Field: protovalidate.FieldPathString(v.Proto.GetField()), Problem: v.Proto.GetMessage(),
		})
	}
	return service.InvalidFields(violations...)
}
