// The worker of the page: it reads the watch, holds the rows and sorts them, so that
// the page has nothing to do but to show the lines that are in view.

import type { ApiError } from "../api/errors";
import { Stream, type StreamState } from "../api/stream";
import type { ImageChange, Location, WatchResponse } from "../api/types";
import type { Report, Request, SentError, SentState } from "./protocol";
import { Store, type Arrangement, type Row } from "./store";

/** Shown at most this often, and never more than a part of the time. */
const pause = 150;

let token: string | undefined;
let arrangement: Arrangement = { group: "", sort: "name", descending: false, folded: [] };
let view = { from: 0, to: 100 };
let current: Watch | undefined;
let next: Watch | undefined;
let timer: ReturnType<typeof setTimeout> | undefined;
let answer: ReturnType<typeof setTimeout> | undefined;
let shownAt = 0;
let cost = 0;

const say = (report: Report) => postMessage(report);
const sent = (error: ApiError): SentError => ({ http: error.http, status: error.status });

function show(): void {
  timer = undefined;
  if (!current) return;
  const began = performance.now();
  say({ kind: "window", window: current.store.window(view.from, view.to) });
  cost = performance.now() - began;
  shownAt = performance.now();
}

function showSoon(): void {
  timer ??= setTimeout(show, Math.max(0, shownAt + Math.max(pause, 4 * cost) - performance.now()));
}

/** cut shows other lines of the same, once for all requests that are waiting. */
function cut(): void {
  answer = undefined;
  if (current) say({ kind: "window", window: current.store.window(view.from, view.to) });
}

const valueOf: Record<string, (row: Row) => string> = {
  cloud: (r) => r.cloud,
  location: (r) => r.location,
  owner_id: (r) => r.owner,
  display_name: (r) => r.display,
  name: (r) => r.name,
  "image.uri": (r) => r.image,
  "resources.accelerator.model": (r) => r.accelerator,
};

/** Watch is one filter: its stream, and its rows. */
class Watch {
  readonly store = new Store();
  readonly #stream: Stream;
  #state: StreamState = { kind: "connecting" };

  constructor(readonly filter: string) {
    this.store.arrange(arrangement);
    this.#stream = new Stream({
      url: `/v1/notebooks:watch${filter ? `?filter=${encodeURIComponent(filter)}` : ""}`,
      token: () => token,
      onState: (state) => this.#onState(state),
      onFrames: (frames) => this.#onFrames(frames),
    });
  }

  close(): void {
    this.#stream.close();
  }

  #onState(state: StreamState): void {
    this.#state = state;
    if (state.kind === "open" && !this.#stream.resumed) this.store.again();
    if (this === next) {
      if (state.kind === "refused") {
        next = undefined;
        say({ kind: "filter", filter: this.filter, error: sent(state.error) });
        if (state.error.http === 400) {
          // Only the filter is wrong. What is shown stays; at first that is everything.
          if (!current && this.filter) next = new Watch("");
          return;
        }
      } else if (current) return;
    } else if (this !== current) return;
    this.tellState();
  }

  tellState(): void {
    const state = this.#state;
    const told: SentState = state.kind === "lost" ? { ...state, error: sent(state.error) } : state.kind === "refused" ? { ...state, error: sent(state.error) } : state;
    say({ kind: "state", state: told });
  }

  #onFrames(frames: WatchResponse[]): void {
    if (this !== current && this !== next) return;
    const locations: Location[] = [];
    const imageChanges: ImageChange[] = [];
    for (const { location, imageChange } of frames) {
      if (location) locations.push(location);
      if (imageChange) imageChanges.push(imageChange);
    }
    if (locations.length > 0 || imageChanges.length > 0) say({ kind: "told", locations, imageChanges });
    if (!this.store.apply(frames)) return;
    if (this === current) showSoon();
    // At first any row will do; in place of others there have to be enough to fill the table.
    else if (this.store.complete || this.store.size >= (current ? view.to - view.from : 1)) take(this);
  }
}

/** take shows a watch that has something to show, in place of the one that was shown so far. */
function take(watch: Watch): void {
  current?.close();
  current = watch;
  next = undefined;
  watch.tellState();
  clearTimeout(timer);
  show();
  say({ kind: "filter", filter: watch.filter, error: undefined });
}

onmessage = (event: MessageEvent<Request>) => {
  const request = event.data;
  switch (request.kind) {
    case "watch":
      token = request.token;
      next?.close();
      next = new Watch(request.filter);
      break;
    case "stop":
      current?.close();
      next?.close();
      current = next = undefined;
      clearTimeout(timer);
      timer = undefined;
      break;
    case "token":
      token = request.token;
      break;
    case "arrange":
      arrangement = request.arrangement;
      current?.store.arrange(arrangement);
      next?.store.arrange(arrangement);
      clearTimeout(timer);
      show();
      break;
    case "window":
      view = request;
      answer ??= setTimeout(cut, 0);
      break;
    case "values":
      say({ kind: "values", id: request.id, values: current?.store.values(valueOf[request.field] ?? (() => ""), request.prefix, 30) ?? [] });
      break;
  }
};
