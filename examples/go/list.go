package main

import (
	"context"
	"fmt"
	"iter"
	"os"
	"time"

	notebookv1 "github.com/notebookd/notebookd/gen/notebook/v1"
)

// notebooks are all that match, a page at a time.
func notebooks(ctx context.Context, service notebookv1.NotebookServiceClient, filter string) iter.Seq2[*notebookv1.Notebook, error] {
	return func(yield func(*notebookv1.Notebook, error) bool) {
		// The token of the next page goes with the same filter.
		for req := (&notebookv1.ListRequest{Filter: filter}); ; {
			page, err := page(ctx, service, req)
			if err != nil {
				yield(nil, err)
				return
			}
			if req.GetPageToken() == "" {
				// Clouds that are down fail nothing: their notebooks are shown as last known.
				for _, location := range page.GetUnreachable() {
					_, _ = fmt.Fprintln(os.Stderr, "cannot be reached now:", location)
				}
			}
			for _, n := range page.GetNotebooks() {
				if !yield(n, nil) {
					return
				}
			}
			if req.PageToken = page.GetNextPageToken(); req.GetPageToken() == "" {
				return
			}
		}
	}
}

func page(ctx context.Context, service notebookv1.NotebookServiceClient, req *notebookv1.ListRequest) (*notebookv1.ListResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	return service.List(ctx, req)
}

// list prints all notebooks that match.
func list(ctx context.Context, service notebookv1.NotebookServiceClient, filter string) error {
	count := 0
	for n, err := range notebooks(ctx, service, filter) {
		if err != nil {
			return err
		}
		fmt.Println(row(n))
		count++
	}
	fmt.Println(count, "notebooks")
	return nil
}
