// A watch over Server-Sent Events, by fetch: an EventSource of a browser cannot say
// who is signed in. It reconnects, resumes, and notices silence.

import { ApiError, errorOf, errorOfStatus, lost } from "./errors";
import type { WatchResponse } from "./types";

export type StreamState =
  | { kind: "connecting" }
  | { kind: "open" }
  /** Not connected; retryAt is when it tries again (Date.now()). */
  | { kind: "lost"; error: ApiError; retryAt: number }
  /** Refused for good: a filter that makes no sense, no rights, signed out. */
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

/** Stream keeps a watch open until it is closed. */
export class Stream {
  #options: StreamOptions;
  #token: string | undefined;
  #closed = false;
  #resumed = false;
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
      const began = Date.now();
      try {
        error = await this.#follow();
      } catch (cause) {
        error = cause instanceof ApiError ? cause : lost(cause);
      }
      if (this.#closed) return;
      if (error.reason === "RESUME_TOKEN_INVALID" && this.#token) {
        this.#token = undefined; // the snapshot that comes instead says all
        continue;
      }
      if ([400, 401, 403, 404].includes(error.http) || ["UNAUTHENTICATED", "PERMISSION_DENIED"].includes(error.reason)) {
        this.#options.onState({ kind: "refused", error });
        return;
      }
      failures = Date.now() - began > maxPause ? 0 : failures + 1;
      const backoff = Math.min(maxPause, minPause * 2 ** Math.min(failures, 6));
      // Those that were cut off together do not come back together.
      const pause = Math.max(error.retryAfter ?? 0, backoff / 2 + (Math.random() * backoff) / 2);
      this.#options.onState({ kind: "lost", error, retryAt: Date.now() + pause });
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
      if (!response.ok || !response.body) return await errorOf(response);
      this.#options.onState({ kind: "open" });
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      const parser = new EventParser();
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return lost();
        clearTimeout(silence);
        silence = setTimeout(() => attempt.abort(), silenceAfter);
        const frames: WatchResponse[] = [];
        let end: ApiError | undefined;
        parser.push(value, (event, data) => {
          if (event === "end") end = errorOfStatus(data);
          else if (data) frames.push(JSON.parse(data) as WatchResponse);
        });
        for (const frame of frames) if (frame.resumeToken) this.#token = frame.resumeToken;
        if (frames.length > 0 && !this.#closed) this.#options.onFrames(frames);
        if (end) return end;
        if (this.#closed) return lost();
      }
    } finally {
      clearTimeout(silence);
      attempt.abort();
    }
  }
}

/** EventParser cuts a text stream into Server-Sent Events, however it is cut itself. */
export class EventParser {
  #rest = "";

  push(chunk: string, emit: (event: string, data: string) => void): void {
    const text = this.#rest + chunk;
    let from = 0;
    for (;;) {
      const end = text.indexOf("\n\n", from);
      if (end < 0) break;
      let event = "message";
      let data = "";
      let at = from;
      while (at < end) {
        let eol = text.indexOf("\n", at);
        if (eol < 0 || eol > end) eol = end;
        if (text.startsWith("data: ", at)) data += (data ? "\n" : "") + text.slice(at + 6, eol);
        else if (text.startsWith("event: ", at)) event = text.slice(at + 7, eol);
        at = eol + 1;
      }
      if (data) emit(event, data);
      from = end + 2;
    }
    this.#rest = text.slice(from);
  }
}
