// A watch over Server-Sent Events, by fetch: an EventSource of a browser cannot say
// who is signed in. It reconnects, resumes, and notices silence.

import { ApiError, errorOf, errorOfStatus, lost } from "./errors";
import type { WatchResponse } from "./types";

export type StreamState =
  | { kind: "connecting" }
  | { kind: "open" }
  /** Not connected; retryAt is when it tries again (Date.now()). */
  | { kind: "lost"; error: ApiError; retryAt: number }
  /** Refused by the server itself, for good: a filter that makes no sense, no rights, signed out. */
  | { kind: "refused"; error: ApiError };

export interface StreamOptions {
  /** For example `/v1/notebooks:watch?filter=…`, without a token. */
  url: string;
  /** The bearer token, asked at each attempt. */
  token: () => string | undefined;
  /** Frames in order, some at a time. */
  onFrames: (frames: WatchResponse[]) => void;
  onState: (state: StreamState) => void;
  /** Continue after this token. */
  resumeToken?: string;
  fetch?: typeof fetch;
}

/** A server that says nothing for this long is gone: it heartbeats every 15 s. */
const silenceAfter = 40_000;
const minPause = 500;
const maxPause = 15_000;
/** A connection that was open for this long went well: what fails later is another failure. */
const wellAfter = 15_000;

/** What does not get better by trying again. */
const refusals = [400, 401, 403, 404];
/** The same, told at the end of a stream: it began well, so what else fails may have passed. */
const refusedLater = ["UNAUTHENTICATED", "PERMISSION_DENIED"];

/** Stream keeps a watch open until it is closed. */
export class Stream {
  #options: StreamOptions;
  #token: string | undefined;
  #closed = false;
  #resumed = false;
  /** When the connection was opened; 0 when it is not. */
  #openedAt = 0;
  #attempt: AbortController | undefined;
  #wake: (() => void) | undefined;

  constructor(options: StreamOptions) {
    this.#options = options;
    this.#token = options.resumeToken;
    void this.#run();
  }

  close(): void {
    this.#closed = true;
    this.#attempt?.abort();
    this.#wake?.();
  }

  /** Whether the connection that is open goes on after a token, rather than with a snapshot. */
  get resumed(): boolean {
    return this.#resumed;
  }

  /** Tries again at once, if it is waiting for the next attempt. */
  retryNow(): void {
    this.#wake?.();
  }

  async #run(): Promise<void> {
    let failures = 0;
    while (!this.#closed) {
      this.#options.onState({ kind: "connecting" });
      let error: ApiError;
      this.#openedAt = 0;
      try {
        error = await this.#follow();
      } catch (cause) {
        error = cause instanceof ApiError ? cause : lost(cause);
      }
      if (this.#closed) return;
      failures = this.#openedAt > 0 && Date.now() - this.#openedAt >= wellAfter ? 0 : failures + 1;
      if (error.own && error.reason === "RESUME_TOKEN_INVALID" && this.#token) {
        this.#token = undefined; // the snapshot that comes instead says all
        if (failures <= 1) continue; // but not again and again without a pause
      } else if (error.own && (refusals.includes(error.http) || refusedLater.includes(error.reason))) {
        this.#options.onState({ kind: "refused", error });
        return;
      }
      const backoff = Math.min(maxPause, minPause * 2 ** Math.min(failures, 6));
      // Those that were cut off together do not come back together.
      const pause = Math.round(Math.max(error.retryAfter ?? 0, backoff / 2 + (Math.random() * backoff) / 2));
      this.#options.onState({ kind: "lost", error, retryAt: Date.now() + pause });
      if (this.#closed) return;
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, pause);
        this.#wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
      this.#wake = undefined;
    }
  }

  /** Opens the watch once and reads it to its end; returns why it ended. */
  async #follow(): Promise<ApiError> {
    const attempt = new AbortController();
    this.#attempt = attempt;
    let silence = setTimeout(() => attempt.abort(), silenceAfter);
    const headers: Record<string, string> = { Accept: "text/event-stream" };
    const bearer = this.#options.token();
    if (bearer) headers["Authorization"] = `Bearer ${bearer}`;
    this.#resumed = this.#token !== undefined;
    if (this.#token) headers["Last-Event-ID"] = this.#token;
    try {
      const response = await (this.#options.fetch ?? fetch)(this.#options.url, {
        headers,
        signal: attempt.signal,
        cache: "no-store",
      });
      if (!response.ok) return await errorOf(response);
      if (!response.body || !/^text\/event-stream\b/i.test(response.headers.get("Content-Type") ?? "")) {
        return lost(); // the page of somebody between, for example one to sign in there
      }
      if (this.#closed) return lost();
      this.#openedAt = Date.now();
      this.#options.onState({ kind: "open" });
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      const parser = new EventParser();
      for (;;) {
        const { done, value } = await reader.read();
        if (done || this.#closed) return lost();
        clearTimeout(silence);
        silence = setTimeout(() => attempt.abort(), silenceAfter);
        const frames: WatchResponse[] = [];
        let end: ApiError | undefined;
        parser.push(value, (event, data) => {
          if (event === "end") end ??= errorOfStatus(data);
          else if (data && !end) frames.push(JSON.parse(data) as WatchResponse);
        });
        if (frames.length > 0) this.#options.onFrames(frames);
        // Only now: what nobody has taken is to be told again.
        for (const frame of frames) if (frame.resumeToken) this.#token = frame.resumeToken;
        if (end) return end;
      }
    } finally {
      clearTimeout(silence);
      attempt.abort();
    }
  }
}

/**
 * EventParser cuts a text stream into Server-Sent Events, however it is cut itself:
 * https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream
 */
export class EventParser {
  /** The line that is not whole yet, in parts: a long one comes in many. */
  #line: string[] = [];
  /** Whether the last chunk ended with a CR: a LF that follows belongs to it. */
  #cr = false;
  #event = "";
  #data: string | undefined;

  push(chunk: string, emit: (event: string, data: string) => void): void {
    if (chunk === "") return;
    let text = this.#cr && chunk.startsWith("\n") ? chunk.slice(1) : chunk;
    this.#cr = chunk.endsWith("\r");
    if (text.includes("\r")) text = text.replace(/\r\n?/g, "\n");
    let at = 0;
    for (;;) {
      const eol = text.indexOf("\n", at);
      if (eol < 0) break;
      let line = text.slice(at, eol);
      if (this.#line.length > 0) {
        line = this.#line.join("") + line;
        this.#line = [];
      }
      at = eol + 1;
      this.#take(line, emit);
    }
    if (at < text.length) this.#line.push(text.slice(at));
  }

  #take(line: string, emit: (event: string, data: string) => void): void {
    if (line === "") {
      const [event, data] = [this.#event || "message", this.#data];
      this.#event = "";
      this.#data = undefined;
      if (data !== undefined) emit(event, data);
      return;
    }
    const colon = line.indexOf(":");
    const field = colon < 0 ? line : line.slice(0, colon); // of a comment it is empty
    if (field !== "data" && field !== "event") return;
    const value = colon < 0 ? "" : line.slice(line[colon + 1] === " " ? colon + 2 : colon + 1);
    if (field === "event") this.#event = value;
    else this.#data = this.#data === undefined ? value : `${this.#data}\n${value}`;
  }
}
