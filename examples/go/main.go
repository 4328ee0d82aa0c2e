// Command go lists and watches the notebooks of a notebookd, and changes the image
// of one: go list, go watch, go change.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"os/signal"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	notebookv1 "github.com/notebookd/notebookd/gen/notebook/v1"
)

const usage = `go list [FILTER]
go watch [FILTER]
go change [-n] [-t TYPE] [-r UUID] [-a WARNING]... NOTEBOOK IMAGE

NOTEBOOKD_ADDRESS   default localhost:9090
NOTEBOOKD_TOKEN     bearer token, if the server wants one
NOTEBOOKD_CA        file with the CA of a server with TLS; without it, no TLS
NOTEBOOKD_STATE     where watch keeps what it knows, default notebookd-watch.json
NOTEBOOKD_BOOKMARK  how often a quiet server says to watch that it is there, default 20s`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		tell(err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	conn, err := connect()
	if err != nil {
		return err
	}
	defer conn.Close()
	service := notebookv1.NewNotebookServiceClient(conn)
	if token := os.Getenv("NOTEBOOKD_TOKEN"); token != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
	}
	switch {
	case len(args) >= 1 && len(args) <= 2 && args[0] == "list":
		return list(ctx, service, append(args, "")[1])
	case len(args) >= 1 && len(args) <= 2 && args[0] == "watch":
		return watch(ctx, service, append(args, "")[1])
	case len(args) > 1 && args[0] == "change":
		return change(ctx, service, args[1:])
	default:
		return errors.New(usage)
	}
}

func connect() (*grpc.ClientConn, error) {
	address := os.Getenv("NOTEBOOKD_ADDRESS")
	if address == "" {
		address = "localhost:9090"
	}
	creds := insecure.NewCredentials()
	if file := os.Getenv("NOTEBOOKD_CA"); file != "" {
		pem, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		roots := x509.NewCertPool()
		if !roots.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("no certificate in %s", file)
		}
		creds = credentials.NewTLS(&tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12})
	}
	return grpc.NewClient(address, grpc.WithTransportCredentials(creds))
}

// tell prints an error in a few lines. Programs go by the reason.
func tell(err error) {
	s := status.Convert(err)
	reason := ""
	for _, detail := range s.Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			reason = info.GetReason() + ": "
		}
	}
	_, _ = fmt.Fprintln(os.Stderr, reason+s.Message())
	for _, detail := range s.Details() {
		if failure, ok := detail.(*errdetails.PreconditionFailure); ok {
			for _, v := range failure.GetViolations() {
				_, _ = fmt.Fprintf(os.Stderr, "  %s: %s\n", v.GetType(), v.GetDescription())
			}
		}
	}
}

// row is a notebook on a line.
func row(n *notebookv1.Notebook) string {
	state := n.GetState().String()[len("STATE_"):]
	image := n.GetImage().GetUri()
	if image == "" {
		image = "-"
	}
	return fmt.Sprint(n.GetName(), " ", state, " ", image)
}
