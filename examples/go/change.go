package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"time"

	"github.com/google/uuid"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	notebookv1 "github.com/notebookd/notebookd/gen/notebook/v1"
)

// change gives a notebook another image.
func change(ctx context.Context, service notebookv1.NotebookServiceClient, args []string) error {
	req := &notebookv1.ChangeImageRequest{Wait: durationpb.New(30 * time.Second)}
	flags := flag.NewFlagSet("change", flag.ContinueOnError)
	flags.BoolVar(&req.ValidateOnly, "n", false, "only show the plan: nothing is changed")
	flags.StringVar(&req.ImageType, "t", "", "`kind` of image: official, user or custom on CoresHub, none elsewhere")
	flags.StringVar(&req.RequestId, "r", "", "`id` of the request: the same again is the same change, not another one")
	flags.Func("a", "`code` of a warning of the plan that is accepted", func(code string) error {
		req.Acknowledge = append(req.Acknowledge, code)
		return nil
	})
	if err := flags.Parse(args); err != nil || flags.NArg() != 2 {
		return errors.Join(err, errors.New(usage))
	}
	req.Name, req.Image = flags.Arg(0), flags.Arg(1)
	if req.GetRequestId() == "" {
		req.RequestId = uuid.NewString()
		if !req.GetValidateOnly() {
			fmt.Println("request id:", req.GetRequestId())
		}
	}
	// It may be sent as often as one likes: the id makes it the same change.
	for attempt := 1; attempt <= 10; attempt++ {
		ended, err := ask(ctx, service, req)
		if ended {
			return err
		}
		if err != nil {
			tell(err)
			select {
			case <-time.After(time.Duration(attempt) * time.Second):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	return fmt.Errorf("it has not ended yet; to ask again: -r %s, with the same arguments", req.GetRequestId())
}

// ask asks for the change, and reports whether it has ended.
func ask(ctx context.Context, service notebookv1.NotebookServiceClient, req *notebookv1.ChangeImageRequest) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, 40*time.Second)
	defer cancel()
	answer, err := service.ChangeImage(ctx, req)
	switch status.Code(err) {
	case codes.OK:
	case codes.Unknown, codes.DeadlineExceeded, codes.Unavailable: // it may have begun, or begin at the next attempt
		return false, err
	default:
		return true, err
	}
	made := answer.GetChange()
	phase := made.GetPhase().String()[len("PHASE_"):]
	switch made.GetPhase() {
	case notebookv1.ImageChange_PHASE_PLANNED:
		fmt.Printf("%s\n-> %s\n", made.GetFromImage(), made.GetToImage())
		for _, step := range made.GetSteps() {
			fmt.Println("  " + step)
		}
		for _, w := range made.GetWarnings() {
			fmt.Printf("warning %s: %s\n", w.GetCode(), w.GetMessage())
		}
	case notebookv1.ImageChange_PHASE_SUCCEEDED, notebookv1.ImageChange_PHASE_UNCHANGED:
		fmt.Println(made.GetName(), phase)
		fmt.Println(answer.GetNotebook().GetName(), "has", answer.GetNotebook().GetImage().GetUri())
	case notebookv1.ImageChange_PHASE_FAILED:
		return true, fmt.Errorf("%s FAILED: %s", made.GetName(), made.GetFailure().GetMessage())
	default:
		fmt.Println(phase + ": still under way") // ask again, at once: the server waits
		return false, nil
	}
	return true, nil
}
