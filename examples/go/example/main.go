// Command example prints the notebooks of a running notebookd and their changes.
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/notebookd/notebookd/client"
	notebookv1 "github.com/notebookd/notebookd/gen/notebook/v1"
)

func main() {
	addr := flag.String("addr", "127.0.0.1:9090", "address of notebookd's gRPC door")
	parent := flag.String("parent", "", "where to look, for example clouds/core")
	filter := flag.String("filter", "", "which notebooks, for example state=RUNNING")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	conn, err := grpc.NewClient(*addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		slog.Error("address", "error", err)
		return
	}
	w := client.NewWatcher(ctx, notebookv1.NewNotebookServiceClient(conn),
		client.Config{Parent: *parent, Filter: *filter, Logger: slog.Default()})
	defer w.Close()
	for change, err := range w.Changes(ctx) {
		switch n := change.Notebook; {
		case err != nil:
			slog.Info("the end", "reason", err)
		case n != nil:
			state := strings.TrimPrefix(n.GetState().String(), "STATE_")
			fmt.Printf("%-11s %-8s %s %s\n", change.Type, state, n.GetName(), n.GetImage().GetUri())
		default:
			fmt.Printf("%-11s %s %s\n", change.Type, change.Name, change.Location.GetState())
		}
	}
}
