"""watch.py [FILTER] prints the notebooks that match, and then every change.

What it knows and its token are kept in a file: stop it, stop the server, start
both again, and it goes on with what it missed.

    NOTEBOOKD_STATE     the file, default notebookd-watch.json
    NOTEBOOKD_BOOKMARK  how often a quiet server has to say that it is there, in
                        seconds, default 20
"""

import json
import os
import queue
import random
import sys
import threading
import time

import grpc

from notebookd import PERMANENT, Service


class Silent(Exception):
    """Nothing came for so long that the connection has to be taken for dead."""


class Watcher:
    def __init__(self, filter, file, bookmark):
        self.filter, self.file, self.bookmark = filter, file, bookmark
        self.notebooks = {}  # what is known, by name
        self.token = ""  # continues after exactly that
        self.failed = 0  # attempts in a row without a frame
        if os.path.exists(file):
            with open(file, encoding="utf-8") as stored:
                state = json.load(stored)
            self.notebooks, self.token = state["notebooks"], state["token"]
            note(f"going on with {len(self.notebooks)} notebooks from {file}")

    def store(self):
        """Keeps notebooks and token together: one of them alone would be wrong after
        a crash. (With very many notebooks, a database would do that better.)"""
        with open(self.file + ".new", "w", encoding="utf-8") as new:
            json.dump({"token": self.token, "notebooks": self.notebooks}, new)
        os.replace(self.file + ".new", self.file)

    def run(self):
        """Keeps a stream open for ever, or raises an error that would come again."""
        while True:
            try:
                # A new connection for each stream: the one before may be dead without
                # having noticed.
                with Service() as service:
                    why = self.follow(service)
            except Silent:
                why = f"silent for {3 * self.bookmark} s"
            except grpc.RpcError as error:
                if error.code() in PERMANENT:
                    raise
                why = error.details() or error.code().name
            pause = min(2**self.failed, 30)
            self.failed += 1
            note(f"{why}; again in about {pause} s")
            time.sleep(pause * random.uniform(0.5, 1))  # not all at the same time

    def follow(self, service):
        """Reads one stream until it ends, and says why it did."""
        call = service.Watch(filter=self.filter, resume_token=self.token, bookmark_interval=f"{self.bookmark}s")
        try:
            for frame in frames(call, silence=3 * self.bookmark):
                self.failed = 0
                self.apply(service.as_dict(frame))
                if frame.resume_token:  # the rows of a snapshot have none
                    # First use what came, then store: after a crash it comes again, and
                    # nothing is lost.
                    self.token = frame.resume_token
                    self.store()
        except grpc.RpcError as error:
            reason = service.reason(error)
            if reason == "RESUME_TOKEN_INVALID" and self.token:  # made for another filter, say
                self.notebooks, self.token = {}, ""
            elif error.code() in PERMANENT:
                sys.exit(f"{reason}: {error.details()}")
            return f"{reason}: {error.details()}"
        finally:
            call.cancel()
        return "the stream ended"

    def apply(self, frame):
        """Takes one frame over. What is not known here is news of a newer server."""
        if "notebook" in frame:
            event, n = frame["notebook"], frame["notebook"]["notebook"]
            what = event["type"].removeprefix("TYPE_")
            if what in ("ADDED", "MODIFIED"):
                self.notebooks[n["name"]] = n
                state = n.get("state", "STATE_?").removeprefix("STATE_")
                print(what, n["name"], state, n.get("image", {}).get("uri", "-"), flush=True)
            elif what in ("DELETED", "LEFT_FILTER"):  # only DELETED says that it is gone from its cloud
                self.notebooks.pop(n["name"], None)  # after a resume it may be one that was never told
                print(what, n["name"], flush=True)
        elif "location" in frame:
            print("LOCATION", frame["location"]["name"], frame["location"]["state"].removeprefix("STATE_"), flush=True)
        elif "reset" in frame:  # it cannot go on from there: a full snapshot follows
            self.notebooks.clear()
            note(f"reset ({frame['reset']['reason']}): everything is told anew")
        elif frame.get("bookmark", {}).get("kind") == "KIND_SNAPSHOT_END":
            note(f"up to date: {len(self.notebooks)} notebooks")
        elif frame.get("bookmark", {}).get("kind") == "KIND_CLOSING":
            note("the server closes")  # and its last token is this one


def frames(call, silence):
    """The frames of a stream; Silent when none comes for that many seconds."""
    received = queue.Queue(maxsize=1000)

    def read():  # ends with the call
        try:
            for frame in call:
                received.put(frame)
            received.put(None)
        except grpc.RpcError as error:
            received.put(error)

    threading.Thread(target=read, daemon=True).start()
    while True:
        try:
            frame = received.get(timeout=silence)
        except queue.Empty:
            raise Silent from None
        if frame is None:
            return
        if isinstance(frame, grpc.RpcError):
            raise frame
        yield frame


def note(text):
    print("--", text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    watcher = Watcher(
        filter=sys.argv[1] if len(sys.argv) > 1 else "",
        file=os.environ.get("NOTEBOOKD_STATE", "notebookd-watch.json"),
        bookmark=int(os.environ.get("NOTEBOOKD_BOOKMARK", "20")),
    )
    try:
        watcher.run()
    except grpc.RpcError as error:
        sys.exit(f"{error.code().name}: {error.details()}")
    except KeyboardInterrupt:
        pass  # the file has all that was printed
