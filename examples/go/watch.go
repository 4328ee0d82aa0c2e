package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/notebookd/notebookd/client"
	notebookv1 "github.com/notebookd/notebookd/gen/notebook/v1"
)

// watch prints the notebooks that match, and then every change. Reconnecting,
// resets and silence are the business of the package client. What was printed is
// kept in a file together with its token: stop it, stop the server, start both
// again, and it goes on with what it missed.
func watch(ctx context.Context, service notebookv1.NotebookServiceClient, filter string) error {
	file := os.Getenv("NOTEBOOKD_STATE")
	if file == "" {
		file = "notebookd-watch.json"
	}
	bookmark := 20 * time.Second
	if seconds := os.Getenv("NOTEBOOKD_BOOKMARK"); seconds != "" {
		n, err := strconv.Atoi(seconds)
		if err != nil {
			return fmt.Errorf("NOTEBOOKD_BOOKMARK: %w", err)
		}
		bookmark = time.Duration(n) * time.Second
	}
	printed, err := load(file)
	if err != nil {
		return err
	}
	w := client.NewWatcher(ctx, service, client.Config{
		Filter: filter, From: printed, BookmarkInterval: bookmark, Logger: slog.Default(),
	})
	defer w.Close()
	for change, err := range w.Changes(ctx) {
		if ctx.Err() != nil {
			return nil // the file has all that was printed
		}
		if err != nil {
			return err
		}
		gone := change.Type == client.Deleted || change.Type == client.LeftFilter
		switch {
		case change.Notebook != nil && gone: // only Deleted says that it is gone from its cloud
			delete(printed.Notebooks, change.Name)
			fmt.Println(change.Type, change.Name)
		case change.Notebook != nil:
			printed.Notebooks[change.Name] = change.Notebook
			fmt.Println(change.Type, row(change.Notebook))
		case gone:
			delete(printed.Locations, change.Name)
			fmt.Println("LOCATION", change.Name, change.Type)
		default:
			printed.Locations[change.Name] = change.Location
			fmt.Println("LOCATION", change.Name, strings.TrimPrefix(change.Location.GetState().String(), "STATE_"))
		}
		// There is a token when nothing is left to be printed. It is stored after
		// that: after a crash, what was printed last comes again, and nothing is lost.
		if change.Token != "" {
			printed.Token = change.Token
			if err := store(file, printed); err != nil {
				return err
			}
		}
	}
	return nil
}

// stored is a client.State in a file: notebooks, locations and token together,
// since one of them alone would be wrong after a crash. (With very many
// notebooks, a database would do that better.)
type stored struct {
	Token     string            `json:"token"`
	Notebooks []json.RawMessage `json:"notebooks"`
	Locations []json.RawMessage `json:"locations"`
}

func store(file string, state client.State) error {
	s := stored{Token: state.Token}
	for _, n := range state.Notebooks {
		data, err := protojson.Marshal(n)
		if err != nil {
			return err
		}
		s.Notebooks = append(s.Notebooks, data)
	}
	for _, l := range state.Locations {
		data, err := protojson.Marshal(l)
		if err != nil {
			return err
		}
		s.Locations = append(s.Locations, data)
	}
	data, err := json.Marshal(s)
	if err != nil {
		return err
	}
	if err := os.WriteFile(file+".new", data, 0o600); err != nil {
		return err
	}
	return os.Rename(file+".new", file)
}

func load(file string) (client.State, error) {
	state := client.State{Notebooks: map[string]*notebookv1.Notebook{}, Locations: map[string]*notebookv1.Location{}}
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return state, nil
	}
	var s stored
	if err == nil {
		err = json.Unmarshal(data, &s)
	}
	for _, data := range s.Notebooks {
		n := &notebookv1.Notebook{}
		err = errors.Join(err, unmarshal(data, n))
		state.Notebooks[n.GetName()] = n
	}
	for _, data := range s.Locations {
		l := &notebookv1.Location{}
		err = errors.Join(err, unmarshal(data, l))
		state.Locations[l.GetName()] = l
	}
	state.Token = s.Token
	if err != nil {
		return state, fmt.Errorf("%s: %w", file, err)
	}
	slog.Info("going on", "notebooks", len(state.Notebooks), "file", file)
	return state, nil
}

// unmarshal also reads what a newer version of this program has stored.
func unmarshal(data []byte, m proto.Message) error {
	return protojson.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(data, m)
}
