package natstest_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/notebookd/notebookd/internal/natstest"
)

func TestMain(m *testing.M) {
	natstest.Main()
	m.Run()
}

// client is a connection, and what it was told of itself.
type client struct {
	js           jetstream.JetStream
	conn         *nats.Conn
	disconnected chan error // sent to by the connection, with room for all that a test causes
}

func connect(t *testing.T, urls ...string) *client {
	t.Helper()
	c := &client{disconnected: make(chan error, 100)}
	conn, err := nats.Connect(strings.Join(urls, ","), nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond),
		nats.Timeout(time.Second), nats.PingInterval(time.Second), nats.MaxPingsOutstanding(2),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) { c.disconnected <- err }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	c.conn = conn
	if c.js, err = jetstream.New(conn); err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *client) createStream(t *testing.T, replicas int) {
	t.Helper()
	eventually(t, func() error { // the servers may still be busy with each other
		_, err := c.js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}, Replicas: replicas})
		return err
	})
}

// tryPublish publishes once. The id makes sure that a message is stored once
// however often it is published.
func (c *client) tryPublish(t *testing.T, id int) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	_, err := c.js.Publish(ctx, "s", []byte("x"), jetstream.WithMsgID(fmt.Sprint(id)), jetstream.WithRetryAttempts(0))
	return err
}

// publish publishes until it is acknowledged.
func (c *client) publish(t *testing.T, id int) {
	t.Helper()
	eventually(t, func() error { return c.tryPublish(t, id) })
}

// wantMessages checks that the stream has so many messages.
func (c *client) wantMessages(t *testing.T, want int) {
	t.Helper()
	eventually(t, func() error {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		stream, err := c.js.Stream(ctx, "S")
		if err != nil {
			return err
		}
		if got := stream.CachedInfo().State.Msgs; got != uint64(want) {
			return fmt.Errorf("%d messages, want %d", got, want)
		}
		return nil
	})
}

// leader returns the index of the node that leads the stream.
func (c *client) leader(t *testing.T, cluster *natstest.Cluster) int {
	t.Helper()
	stream, err := c.js.Stream(t.Context(), "S")
	if err != nil {
		t.Fatal(err)
	}
	leader := slices.IndexFunc([]int{0, 1, 2}, func(i int) bool { return cluster.Name(i) == stream.CachedInfo().Cluster.Leader })
	if leader < 0 {
		t.Fatalf("stream without a leader: %+v", stream.CachedInfo().Cluster)
	}
	return leader
}

// eventually tries until it works.
func eventually(t *testing.T, try func() error) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try()
		if err == nil {
			return
		}
		select {
		case <-deadline:
			t.Fatal(err)
		case <-tick.C:
		}
	}
}

func TestKilledAndPaused(t *testing.T) {
	t.Parallel()
	cluster := natstest.Start(t, 3)
	c := connect(t, cluster.URLs()...)
	c.createStream(t, 3)
	c.publish(t, 1)

	other := (c.leader(t, cluster) + 1) % 3
	cluster.Kill(other)
	c.publish(t, 2)
	cluster.Restart(other)
	cluster.WaitUsable(t)
	c.publish(t, 3)

	leader := c.leader(t, cluster)
	cluster.Pause(leader)
	rest := connect(t, slices.Delete(cluster.URLs(), leader, leader+1)...)
	rest.publish(t, 4)
	rest.wantMessages(t, 4)
	cluster.Resume(leader)
	cluster.WaitUsable(t)
	c.publish(t, 5)
	c.wantMessages(t, 5)
}

// What is left at the end are two copies, neither of which is the first one, so
// no wait was too short.
func TestWipedOneByOne(t *testing.T) {
	t.Parallel()
	cluster := natstest.Start(t, 3)
	c := connect(t, cluster.URLs()...)
	c.createStream(t, 3)
	const messages = 500
	for id := 1; id <= messages; id++ {
		c.publish(t, id)
	}
	leader := c.leader(t, cluster)
	for _, i := range []int{(leader + 1) % 3, leader} {
		cluster.Kill(i)
		cluster.Wipe(i)
		cluster.Restart(i)
		cluster.WaitUsable(t)
	}
	cluster.Kill((leader + 2) % 3)
	c.wantMessages(t, messages)
}

func TestIsolated(t *testing.T) {
	t.Parallel()
	cluster := natstest.Start(t, 3)
	c := connect(t, cluster.URLs()...)
	c.createStream(t, 3)
	c.publish(t, 1)

	alone := c.leader(t, cluster)
	inside := connect(t, cluster.URLs()[alone])
	outside := connect(t, slices.Delete(cluster.URLs(), alone, alone+1)...)
	cluster.Isolate(alone)
	if err := inside.tryPublish(t, 2); err == nil {
		t.Error("a node that sees no other took a message")
	}
	outside.publish(t, 3)
	began := time.Now()
	eventually(t, func() error {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := inside.js.AccountInfo(ctx)
		if reply := new(jetstream.APIError); errors.As(err, &reply) && reply.Code == 503 {
			return nil
		}
		return fmt.Errorf("the node does not notice that it is alone: %w", err)
	})
	t.Logf("the node noticed that it is alone after another %v", time.Since(began))
	outside.publish(t, 4)
	if inside.tryPublish(t, 2) == nil {
		t.Error("a node that sees no other took a message")
	}

	cluster.Rejoin(alone)
	cluster.WaitUsable(t)
	inside.publish(t, 5)
	outside.wantMessages(t, 4)
}

func TestDoor(t *testing.T) {
	t.Parallel()
	cluster := natstest.Start(t, 1)
	direct := connect(t, cluster.URLs()...)
	direct.createStream(t, 1)
	door := cluster.Door(t)
	c := connect(t, door.URLs()...)
	for id := 1; id <= 2; id++ {
		c.publish(t, 2*id)
		for len(c.disconnected) > 0 {
			t.Log("by mending the last time:", <-c.disconnected)
		}
		door.Cut()
		if err := c.tryPublish(t, 2*id+1); err == nil {
			t.Error("a message came through a door that is cut")
		}
		select {
		case err := <-c.disconnected:
			// Only the silence may tell, as nothing else comes through.
			if !errors.Is(err, nats.ErrStaleConnection) {
				t.Errorf("disconnected by %v, want a stale connection", err)
			}
		case <-time.After(30 * time.Second):
			t.Fatal("the client does not notice the cut")
		}
		if conn, err := nats.Connect(strings.Join(door.URLs(), ","), nats.Timeout(500*time.Millisecond)); err == nil {
			conn.Close()
			t.Error("a new connection came through a door that is cut")
		}
		if err := direct.tryPublish(t, 100+id); err != nil {
			t.Errorf("the cut of a door harms another client: %v", err)
		}
		door.Mend()
		c.publish(t, 2*id)
	}
	c.wantMessages(t, 4)
}

func TestDoorEndsWithMend(t *testing.T) {
	t.Parallel()
	cluster := natstest.Start(t, 1)
	door := cluster.Door(t)
	c := connect(t, door.URLs()...)
	// Mended before anybody noticed: what was lost meanwhile would be missing in
	// the middle of the stream of bytes, if the connection went on.
	door.Cut()
	door.Mend()
	select {
	case err := <-c.disconnected:
		t.Log("by mending:", err)
	case <-time.After(30 * time.Second):
		t.Fatal("a connection outlived a cut")
	}
	eventually(t, func() error { return c.conn.FlushTimeout(time.Second) })
}

// A cut must not have to wait for a reader that has stopped reading.
func TestDoorOfPausedNode(t *testing.T) {
	t.Parallel()
	cluster := natstest.Start(t, 1)
	door := cluster.Door(t)
	conn, err := net.Dial("tcp", strings.TrimPrefix(door.URLs()[0], "nats://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	cluster.Pause(0)
	chunk := make([]byte, 1<<16)
	for err == nil { // until all buffers on the way are full
		if err := conn.SetWriteDeadline(time.Now().Add(300 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		_, err = conn.Write(chunk)
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal(err)
	}
	door.Cut()
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write(make([]byte, 1<<24)); err != nil {
		t.Errorf("a cut door swallows nothing: %v", err)
	}
	cluster.Resume(0)
	door.Mend()
	if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("a connection outlived a cut")
	}
	cluster.WaitUsable(t)
}

func TestRestartKeepsFiles(t *testing.T) {
	t.Parallel()
	cluster := natstest.Start(t, 1)
	c := connect(t, cluster.URLs()...)
	c.createStream(t, 1)
	c.publish(t, 1)
	cluster.Kill(0)
	cluster.Restart(0)
	cluster.WaitUsable(t)
	c.publish(t, 2)
	c.wantMessages(t, 2)
}
