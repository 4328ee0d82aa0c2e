package client_test

import (
	"context"
	"fmt"
	"log"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/notebookd/notebookd/client"
	notebookv1 "github.com/notebookd/notebookd/gen/notebook/v1"
)

// Print every notebook that runs, and then every change.
func Example() {
	conn, err := grpc.NewClient("localhost:9090", grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()

	ctx := context.Background()
	w := client.NewWatcher(ctx, notebookv1.NewNotebookServiceClient(conn), client.Config{Filter: "state = RUNNING"})
	defer w.Close()
	for change, err := range w.Changes(ctx) {
		if err != nil {
			log.Print(err)
			return
		}
		if n := change.Notebook; n != nil {
			fmt.Println(change.Type, n.GetName(), n.GetImage().GetUri())
		}
	}
}

// Go on from what was known before, for example before a restart: what changed
// meanwhile is told, and nothing else.
func ExampleConfig_from() {
	conn, err := grpc.NewClient("localhost:9090", grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()

	ctx := context.Background()
	service := notebookv1.NewNotebookServiceClient(conn)
	earlier := client.NewWatcher(ctx, service, client.Config{})
	earlier.Close()
	stored := earlier.State()

	w := client.NewWatcher(ctx, service, client.Config{From: stored})
	defer w.Close()
	if err := w.WaitSynced(ctx); err != nil {
		log.Print(err)
		return
	}
	for name, n := range w.State().Notebooks {
		fmt.Println(name, n.GetState())
	}
}
