import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { EventParser, Stream, type StreamState } from "./stream";
import type { WatchResponse } from "./types";

/** Exchange is one request that the stream has made, and what it is answered with. */
class Exchange {
  readonly headers: Headers;
  readonly at = Date.now();
  readonly signal: AbortSignal;
  aborted = false;
  #answer!: (response: Response) => void;
  #refuse!: (cause: unknown) => void;
  readonly response = new Promise<Response>((resolve, reject) => {
    this.#answer = resolve;
    this.#refuse = reject;
  });
  #body!: ReadableStreamDefaultController<Uint8Array>;

  constructor(readonly url: string, init: RequestInit) {
    this.headers = new Headers(init.headers);
    this.signal = init.signal!;
    this.signal.addEventListener("abort", () => {
      this.aborted = true;
      const cause = new DOMException("aborted", "AbortError");
      this.#refuse(cause);
      try {
        this.#body?.error(cause);
      } catch {
        // It has ended already.
      }
    });
  }

  /** Answers with a stream that goes on. */
  async open(type = "text/event-stream"): Promise<void> {
    const body = new ReadableStream<Uint8Array>({ start: (controller) => void (this.#body = controller) });
    this.#answer(new Response(body, { headers: { "Content-Type": type } }));
    await settle();
  }

  async send(bytes: Uint8Array | string): Promise<void> {
    this.#body.enqueue(typeof bytes === "string" ? new TextEncoder().encode(bytes) : bytes);
    await settle();
  }

  async end(): Promise<void> {
    this.#body.close();
    await settle();
  }

  async cut(): Promise<void> {
    this.#body.error(new TypeError("network error"));
    await settle();
  }

  async fail(): Promise<void> {
    this.#refuse(new TypeError("fetch failed"));
    await settle();
  }

  /** Answers with anything else. */
  answer(response: Response): void {
    this.#answer(response);
  }

  async refuse(status: number, body: string, type = "application/json"): Promise<void> {
    this.#answer(new Response(body, { status, headers: { "Content-Type": type } }));
    await settle();
  }
}

/** Lets everything happen that needs no time. */
async function settle(): Promise<void> {
  for (let i = 0; i < 5; i++) await vi.advanceTimersByTimeAsync(0);
}

/** One stream, what it has asked and what it has told. */
function start(options: { resumeToken?: string; token?: () => string | undefined; onFrames?: (frames: WatchResponse[]) => void } = {}) {
  const asked: Exchange[] = [];
  const states: StreamState[] = [];
  const frames: WatchResponse[] = [];
  const stream = new Stream({
    url: "/v1/notebooks:watch",
    token: options.token ?? (() => undefined),
    ...(options.resumeToken ? { resumeToken: options.resumeToken } : {}),
    onFrames: (told) => {
      options.onFrames?.(told);
      frames.push(...told);
    },
    onState: (state) => states.push(state),
    fetch: (url, init) => {
      const exchange = new Exchange(String(url), init ?? {});
      asked.push(exchange);
      return exchange.response;
    },
  });
  streams.push(stream);
  return { stream, asked, states, frames, last: () => asked.at(-1)!, kinds: () => states.map((s) => s.kind), state: () => states.at(-1)! };
}

const frame = (token: string) => `id: ${token}\nevent: bookmark\ndata: {"resumeToken":"${token}","bookmark":{"kind":"KIND_HEARTBEAT"}}\n\n`;
const status = (reason: string, more: object[] = [], domain = "notebookd") =>
  JSON.stringify({ code: 3, message: "no", details: [{ "@type": "type.googleapis.com/google.rpc.ErrorInfo", reason, domain }, ...more] });
const end = (reason: string) => `event: end\nretry: 1000\ndata: ${status(reason)}\n\n`;
const tokensOf = (frames: WatchResponse[]) => frames.map((f) => f.resumeToken);

let streams: Stream[] = [];

beforeEach(() => {
  vi.useFakeTimers({ now: new Date("2026-03-01T00:00:00Z") });
  vi.spyOn(Math, "random").mockReturnValue(0.5); // a pause is then ¾ of its longest
});
afterEach(async () => {
  for (const stream of streams) stream.close();
  streams = [];
  await settle();
  expect(vi.getTimerCount()).toBe(0); // nothing goes on after close
  vi.useRealTimers();
  vi.restoreAllMocks();
});

describe("EventParser", () => {
  /** What comes of a text that is cut into chunks. */
  function events(chunks: string[]): string[][] {
    const out: string[][] = [];
    const parser = new EventParser();
    for (const chunk of chunks) parser.push(chunk, (event, data) => out.push([event, data]));
    return out;
  }

  test.each([
    ["one", "data: a\n\n", [["message", "a"]]],
    ["a name", "event: end\ndata: a\n\n", [["end", "a"]]],
    ["a name is for one event only", "event: end\ndata: a\n\ndata: b\n\n", [["end", "a"], ["message", "b"]]],
    ["a name without data is nothing", "event: end\n\ndata: b\n\n", [["message", "b"]]],
    ["without a space", "event:x\ndata:a\n\n", [["x", "a"]]],
    ["only one space belongs to the field", "data:  a \n\n", [["message", " a "]]],
    ["several lines", "data: a\ndata: b\ndata\ndata:\ndata: c\n\n", [["message", "a\nb\n\n\nc"]]],
    ["the first of several lines is empty", "data:\ndata: a\n\n", [["message", "\na"]]],
    ["comments", ": hb\n\n: data: x\ndata: a\n:\n\n", [["message", "a"]]],
    ["other fields", "id: 7\nretry: 2000\ndatax: y\ndata : z\ndata: a\n\n", [["message", "a"]]],
    ["CR LF", "event: e\r\ndata: a\r\ndata: b\r\n\r\ndata: c\r\n\r\n", [["e", "a\nb"], ["message", "c"]]],
    ["CR", "data: a\rdata: b\r\rdata: c\r\r", [["message", "a\nb"], ["message", "c"]]],
    ["all mixed", "data: a\r\n\ndata: b\n\rdata: c\r\r\n", [["message", "a"], ["message", "b"], ["message", "c"]]],
    ["what is not finished is not told", "data: a\n\ndata: b\n", [["message", "a"]]],
    ["a colon in a value", 'data: {"a":"b: c"}\n\n', [["message", '{"a":"b: c"}']]],
  ])("%s, cut anywhere", (_, text, want) => {
    expect(events([text])).toEqual(want);
    expect(events([...text])).toEqual(want);
    for (let i = 0; i <= text.length; i++) {
      for (let j = i; j <= text.length; j++) expect(events([text.slice(0, i), text.slice(i, j), text.slice(j)])).toEqual(want);
    }
  });

  test("a long line that comes in very many parts takes no long time", () => {
    const part = "x".repeat(1000);
    const parser = new EventParser();
    let got = 0;
    const began = performance.now();
    parser.push("data: ", () => {});
    for (let i = 0; i < 20_000; i++) parser.push(part, () => {});
    parser.push("\n\n", (_, data) => (got = data.length));
    expect(got).toBe(20_000_000);
    expect(performance.now() - began).toBeLessThan(5000); // it took minutes when each part was searched anew
  });
});

describe("frames", () => {
  test("are the same wherever the bytes are cut, also within a character", async () => {
    const told = { resumeToken: "t1", notebook: { type: "TYPE_ADDED", notebook: { name: "n", displayName: "训练🚀ä" } } };
    for (const eol of ["\n", "\r\n", "\r"]) {
      const text = [`retry: 2000`, ``, `: hb`, ``, `id: t1`, `event: notebook`, `data: ${JSON.stringify(told)}`, ``, ``].join(eol);
      const bytes = new TextEncoder().encode(text);
      for (let cut = 1; cut < bytes.length; cut++) {
        const run = start();
        await run.last().open();
        await run.last().send(bytes.slice(0, cut));
        await run.last().send(bytes.slice(cut));
        expect(run.frames, `${JSON.stringify(eol)} cut at ${cut}`).toEqual([told]);
        run.stream.close();
      }
      const run = start();
      await run.last().open();
      for (const byte of bytes) await run.last().send(Uint8Array.of(byte));
      expect(run.frames).toEqual([told]);
    }
  });

  test("that come together are told together, in order", async () => {
    const batches: number[] = [];
    const run = start({ onFrames: (told) => batches.push(told.length) });
    await run.last().open();
    await run.last().send(frame("a") + frame("b") + ": hb\n\n" + frame("c"));
    await run.last().send(": hb\n\n");
    expect(tokensOf(run.frames)).toEqual(["a", "b", "c"]);
    expect(batches).toEqual([3]);
    expect(run.kinds()).toEqual(["connecting", "open"]);
  });
});

describe("what is asked", () => {
  test("says who asks, anew each time, and what is wanted", async () => {
    let bearer: string | undefined;
    const run = start({ token: () => bearer });
    expect(run.last().url).toBe("/v1/notebooks:watch");
    expect(Object.fromEntries(run.last().headers)).toEqual({ accept: "text/event-stream" });
    bearer = "secret";
    await run.last().fail();
    await vi.advanceTimersByTimeAsync(1000);
    expect(Object.fromEntries(run.last().headers)).toEqual({ accept: "text/event-stream", authorization: "Bearer secret" });
  });

  test("goes on after the last token, also after one that came later than frames without", async () => {
    const run = start();
    await run.last().open();
    expect(run.stream.resumed).toBe(false);
    await run.last().send(frame("a") + frame("b") + 'event: location\ndata: {"location":{"name":"l"}}\n\n');
    await run.last().cut();
    await vi.advanceTimersByTimeAsync(1000);
    expect(run.asked.length).toBe(2);
    expect(run.last().headers.get("last-event-id")).toBe("b");
    await run.last().open();
    expect(run.stream.resumed).toBe(true);
    // A reset comes with a token of its own.
    await run.last().send('id: r\nevent: reset\ndata: {"resumeToken":"r","reset":{"reason":"TOKEN_EXPIRED"}}\n\n');
    expect(run.frames.at(-1)).toEqual({ resumeToken: "r", reset: { reason: "TOKEN_EXPIRED" } });
    await run.last().end();
    await vi.advanceTimersByTimeAsync(2000);
    expect(run.last().headers.get("last-event-id")).toBe("r");
  });

  test("goes on after a token that was given", () => {
    expect(start({ resumeToken: "before" }).last().headers.get("last-event-id")).toBe("before");
  });

  test("asks again for what nobody has taken", async () => {
    let fail = true;
    const run = start({
      onFrames: () => {
        if (fail) throw new Error("no");
      },
    });
    await run.last().open();
    await run.last().send(frame("a"));
    expect(run.state()).toMatchObject({ kind: "lost", error: { reason: "SERVER_LOST" } });
    fail = false;
    await vi.advanceTimersByTimeAsync(1000);
    expect(run.last().headers.get("last-event-id")).toBeNull();
  });

  test("a frame that cannot be read is asked for again", async () => {
    const run = start();
    await run.last().open();
    await run.last().send(frame("a"));
    await run.last().send('data: {"resumeToken":"b"\n\n');
    expect(run.state().kind).toBe("lost");
    await vi.advanceTimersByTimeAsync(1000);
    expect(run.last().headers.get("last-event-id")).toBe("a");
  });

  test("a token that is not taken is dropped, at once and without a word", async () => {
    const run = start({ resumeToken: "old" });
    await run.last().refuse(400, status("RESUME_TOKEN_INVALID"));
    expect(run.asked.length).toBe(2);
    expect(run.last().headers.has("last-event-id")).toBe(false);
    expect(run.kinds()).toEqual(["connecting", "connecting"]);
    await run.last().open();
    expect(run.stream.resumed).toBe(false);
    // Not in a circle: what it sends cannot be continued either.
    await run.last().send(frame("x") + end("RESUME_TOKEN_INVALID"));
    expect(run.asked.length).toBe(2);
    expect(run.state().kind).toBe("lost");
    await vi.advanceTimersByTimeAsync(2000);
    expect(run.asked.length).toBe(3);
    expect(run.last().headers.has("last-event-id")).toBe(false);
  });
});

describe("silence", () => {
  test("of an answer that does not come, or of a stream, is a lost connection", async () => {
    const run = start();
    await vi.advanceTimersByTimeAsync(39_999);
    expect(run.kinds()).toEqual(["connecting"]);
    await vi.advanceTimersByTimeAsync(1);
    await settle();
    expect(run.last().aborted).toBe(true);
    expect(run.state()).toMatchObject({ kind: "lost", error: { reason: "SERVER_LOST", http: 0 } });

    await vi.advanceTimersByTimeAsync(1000);
    await run.last().open();
    await run.last().send(frame("a"));
    await vi.advanceTimersByTimeAsync(39_000);
    await run.last().send(": hb\n\n"); // a heartbeat is enough
    await vi.advanceTimersByTimeAsync(39_000);
    expect(run.state().kind).toBe("open");
    await vi.advanceTimersByTimeAsync(1000);
    await settle();
    expect(run.last().aborted).toBe(true);
    expect(run.state().kind).toBe("lost");
    await vi.advanceTimersByTimeAsync(1000);
    expect(run.last().headers.get("last-event-id")).toBe("a");
  });

  test("of an error whose text does not come", async () => {
    const run = start();
    await run.last().open(); // the first is only to have a second that fails
    await run.last().end();
    await vi.advanceTimersByTimeAsync(1000);
    const late = run.last();
    const body = new ReadableStream<Uint8Array>({
      start: (controller) => late.signal.addEventListener("abort", () => controller.error(new DOMException("aborted", "AbortError"))),
    });
    late.answer(new Response(body, { status: 503 }));
    await settle();
    expect(run.state().kind).toBe("connecting");
    await vi.advanceTimersByTimeAsync(40_000);
    expect(run.state()).toMatchObject({ kind: "lost", error: { http: 503, reason: "SERVER_LOST" } });
  });
});

describe("pauses", () => {
  /** How long each of some attempts is waited for, when all fail at once. */
  async function pauses(run: ReturnType<typeof start>, attempts: number): Promise<number[]> {
    const out: number[] = [];
    for (let i = 0; i < attempts; i++) {
      const began = Date.now();
      const before = run.asked.length;
      await run.last().fail();
      const told = run.state();
      if (told.kind !== "lost") throw new Error(told.kind);
      await vi.advanceTimersByTimeAsync(told.retryAt - Date.now() - 1);
      expect(run.asked.length).toBe(before); // when it said, and not before
      await vi.advanceTimersByTimeAsync(1);
      expect(run.asked.length).toBe(before + 1);
      out.push(run.last().at - began);
    }
    return out;
  }

  test("grow to 15 s", async () => {
    expect(await pauses(start(), 7)).toEqual([750, 1500, 3000, 6000, 11_250, 11_250, 11_250]);
  });

  test.each([
    [0, [500, 1000, 2000, 4000, 7500]],
    [0.999999, [1000, 2000, 4000, 8000, 15_000]],
  ])("are a matter of chance (%d)", async (chance, want) => {
    vi.mocked(Math.random).mockReturnValue(chance);
    for (const [i, ms] of (await pauses(start(), 5)).entries()) expect(Math.abs(ms - want[i]!)).toBeLessThanOrEqual(1);
  });

  test("begin anew after a connection that went well, and only then", async () => {
    const run = start();
    await pauses(run, 4);
    await run.last().open();
    await run.last().send(frame("a"));
    await vi.advanceTimersByTimeAsync(14_000);
    await run.last().cut(); // too soon to call it well
    expect((run.state() as { retryAt: number }).retryAt - Date.now()).toBe(11_250);
    await vi.advanceTimersByTimeAsync(12_000);
    await run.last().open();
    await vi.advanceTimersByTimeAsync(15_000);
    await run.last().cut();
    expect((run.state() as { retryAt: number }).retryAt - Date.now()).toBe(375);
    await vi.advanceTimersByTimeAsync(375);
    expect(await pauses(run, 2)).toEqual([750, 1500]);
  });

  test("do not begin anew because a try took long", async () => {
    const run = start();
    await pauses(run, 3);
    await vi.advanceTimersByTimeAsync(30_000);
    await run.last().fail();
    expect((run.state() as { retryAt: number }).retryAt - Date.now()).toBe(6000);
  });

  test("are as long as the server asks for", async () => {
    const run = start();
    await run.last().refuse(429, status("RATE_LIMITED", [{ "@type": "type.googleapis.com/google.rpc.RetryInfo", retryDelay: "7.5s" }]));
    expect(run.state()).toMatchObject({ kind: "lost", error: { reason: "RATE_LIMITED" }, retryAt: Date.now() + 7500 });
  });

  test("are not what somebody between asks for", async () => {
    const run = start();
    await run.last().refuse(429, JSON.stringify({ details: [{ retryDelay: "soon" }] }));
    expect(run.state()).toMatchObject({ kind: "lost", retryAt: Date.now() + 750 });
  });

  test("end at a word", async () => {
    const run = start();
    await run.last().fail();
    run.stream.retryNow();
    await settle();
    expect(run.asked.length).toBe(2);
    run.stream.retryNow(); // of no effect while it is under way
    await settle();
    expect(run.asked.length).toBe(2);
    expect(vi.getTimerCount()).toBe(1); // that of silence
  });
});

describe("errors", () => {
  const own = [
    [400, "FILTER_INVALID"],
    [400, "INVALID_FIELD"],
    [401, "UNAUTHENTICATED"],
    [403, "PERMISSION_DENIED"],
    [404, "CLOUD_NOT_FOUND"],
  ] as const;
  test.each(own)("a %d of the server itself is for good (%s)", async (http, reason) => {
    const run = start();
    await run.last().refuse(http, status(reason));
    expect(run.state()).toMatchObject({ kind: "refused", error: { http, reason, own: true } });
    await vi.advanceTimersByTimeAsync(120_000);
    expect(run.asked.length).toBe(1);
  });

  test.each([400, 401, 403, 404])("a %d of somebody between is a server that cannot be reached", async (http) => {
    for (const [body, type] of [
      ["<html><h1>nginx</h1></html>", "text/html"],
      ['{"message":"no"}', "application/json"],
      [status("PERMISSION_DENIED", [], "proxy.example"), "application/json"],
      [status("NO_SUCH_REASON"), "application/json"],
      ["", "text/plain"],
    ] as const) {
      const run = start();
      await run.last().refuse(http, body, type);
      expect(run.state()).toMatchObject({ kind: "lost", error: { http, own: false }, retryAt: Date.now() + 750 });
      await vi.advanceTimersByTimeAsync(750);
      await run.last().open();
      expect(run.state().kind).toBe("open");
      run.stream.close();
    }
  });

  test.each([
    [429, "TOO_MANY_WATCHES"],
    [503, "DRAINING"],
    [500, "INTERNAL"],
    [504, "CALLER_GONE"],
  ] as const)("a %d is tried again (%s)", async (http, reason) => {
    const run = start();
    await run.last().refuse(http, status(reason));
    expect(run.state()).toMatchObject({ kind: "lost", error: { http, reason } });
    await vi.advanceTimersByTimeAsync(1000);
    expect(run.asked.length).toBe(2);
  });

  test("a page that is no stream of events is somebody else's", async () => {
    for (const type of ["text/html", "application/json", "text/event-streams"]) {
      const run = start();
      await run.last().open(type);
      expect(run.kinds()).toEqual(["connecting", "lost"]);
      expect(run.last().aborted).toBe(true); // nobody reads it
      run.stream.close();
    }
    const run = start();
    await run.last().open("Text/Event-Stream; charset=utf-8");
    expect(run.kinds()).toEqual(["connecting", "open"]);
  });

  test("no connection, one that breaks, one that ends", async () => {
    const run = start();
    await run.last().fail();
    expect(run.state()).toMatchObject({ kind: "lost", error: { reason: "SERVER_LOST", http: 0, message: "fetch failed" } });
    await vi.advanceTimersByTimeAsync(1000);
    await run.last().open();
    await run.last().cut();
    expect(run.state()).toMatchObject({ kind: "lost", error: { reason: "SERVER_LOST", message: "network error" } });
    await vi.advanceTimersByTimeAsync(2000);
    await run.last().open();
    await run.last().send('data: {"resumeToken":"half');
    await run.last().end();
    expect(run.state()).toMatchObject({ kind: "lost", error: { reason: "SERVER_LOST" } });
    expect(run.frames).toEqual([]);
  });

  test("the end that the server tells, after what came before it", async () => {
    const run = start();
    await run.last().open();
    await run.last().send(frame("a") + end("SLOW_READER") + frame("never"));
    expect(tokensOf(run.frames)).toEqual(["a"]);
    expect(run.state()).toMatchObject({ kind: "lost", error: { reason: "SLOW_READER" } });
    expect(run.last().aborted).toBe(true);
    await vi.advanceTimersByTimeAsync(1000);
    expect(run.last().headers.get("last-event-id")).toBe("a");
    await run.last().open();
    await run.last().send("event: end\ndata: {nonsense\n\n");
    expect(run.state()).toMatchObject({ kind: "lost", error: { reason: "SERVER_LOST" } });
  });

  test.each(["UNAUTHENTICATED", "PERMISSION_DENIED"])("an end that says %s is for good", async (reason) => {
    const run = start();
    await run.last().open();
    await run.last().send(end(reason));
    expect(run.state()).toMatchObject({ kind: "refused", error: { reason } });
  });
});

describe("close", () => {
  test("while it connects, reads and waits: nothing more is asked or told", async () => {
    const connecting = start();
    connecting.stream.close();
    await settle();
    expect(connecting.last().aborted).toBe(true);
    expect(connecting.kinds()).toEqual(["connecting"]);

    const reading = start();
    await reading.last().open();
    await reading.last().send(frame("a"));
    reading.stream.close();
    await settle();
    expect(reading.last().aborted).toBe(true);
    expect(reading.kinds()).toEqual(["connecting", "open"]);

    const waiting = start();
    await waiting.last().fail();
    waiting.stream.close();
    await vi.advanceTimersByTimeAsync(60_000);
    expect(waiting.asked.length).toBe(1);
    expect(waiting.kinds()).toEqual(["connecting", "lost"]);
  });

  test("from within what it tells", async () => {
    const run = start({ onFrames: () => run.stream.close() });
    await run.last().open();
    await run.last().send(frame("a") + frame("b"));
    expect(tokensOf(run.frames)).toEqual(["a", "b"]);
    await vi.advanceTimersByTimeAsync(60_000);
    expect([run.asked.length, run.kinds()]).toEqual([1, ["connecting", "open"]]);

    const failing = start();
    failing.states.push = (...told) => {
      if (told[0]?.kind === "lost") failing.stream.close();
      return 0;
    };
    await failing.last().fail();
    await vi.advanceTimersByTimeAsync(60_000);
    expect(failing.asked.length).toBe(1);
  });
});
