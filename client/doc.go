// Package client follows the notebooks of a notebookd from a Go program.
//
// A Watcher keeps a Watch open for as long as it lives and holds the state that
// the Watch tells:
//
//	conn, err := grpc.NewClient("localhost:9090", grpc.WithTransportCredentials(insecure.NewCredentials()))
//	…
//	w := client.NewWatcher(ctx, notebookv1.NewNotebookServiceClient(conn), client.Config{Filter: "state = RUNNING"})
//	defer w.Close()
//	for change, err := range w.Changes(ctx) {
//		…
//	}
//
// # What it promises
//
//   - It is about state, not events. Versions in between may be skipped, the last
//     one never is, and the changes of one notebook come in order.
//   - The Watch delivers at least once across reconnects; a Watcher tells each
//     change once. What is delivered again and changes nothing is not told.
//   - A broken, silent or closing stream is replaced, and goes on where it was.
//     Attempts are spread and become rarer, from Config.MinBackoff to
//     Config.MaxBackoff; a server that says when to come again is obeyed.
//   - When the server cannot go on where the stream was, because it was away for
//     too long or has a new log, it tells everything anew. State never shows half
//     of that, and Changes tells the difference: what came, what is another, and
//     what is gone.
//   - Nothing is taken for gone because a connection, the server or a cloud is
//     down. State is as last told; the state of each location says how far it can
//     be trusted.
//   - A slow consumer holds up neither the stream nor other consumers. There is no
//     queue of events: what is kept for a consumer is at most one entry for each
//     notebook, and it is told the latest version when it comes back.
//   - Errors that another attempt cannot mend end the Watcher, and are returned by
//     everything that waits: INVALID_ARGUMENT, NOT_FOUND (of the parent),
//     UNAUTHENTICATED, PERMISSION_DENIED, UNIMPLEMENTED. All others are tried again
//     for ever, and go to Config.Logger.
//
// It refuses to do more: it changes nothing, calls no other method, and opens and
// closes no connection. A grpc.ClientConn has pauses of its own between attempts
// to connect, of up to two minutes; grpc.WithConnectParams makes them shorter.
package client
