// What is measured of a page, and how it is judged.

import type { Browser, CDPSession, Page } from "@playwright/test";

/** minutes reads "10m" or "90s", and returns milliseconds. */
export function duration(text: string): number {
  const [, number, unit] = /^(\d+(?:\.\d+)?)(s|m|h)$/.exec(text) ?? [];
  if (!number || !unit) throw new Error(`PERF is how long the memory is watched, such as 10m or 90s; it is ${JSON.stringify(text)}`);
  return Number(number) * { s: 1000, m: 60_000, h: 3_600_000 }[unit as "s" | "m" | "h"];
}

/** The longest task of a page's main thread: by the clock, and what it took of the processor. */
export interface Longest {
  wall: number;
  cpu: number;
}

interface TraceEvent {
  name: string;
  ph: string;
  pid: number;
  tid: number;
  dur?: number;
  tdur?: number;
  args: { name?: string };
}

/**
 * longest does something and returns the longest task meanwhile. A task takes longer by
 * the clock than of the processor when the machine had something else to do.
 */
export async function longest(browser: Browser, page: Page, act: () => Promise<void>): Promise<Longest> {
  await browser.startTracing(page, { categories: ["-*", "toplevel"] });
  await act();
  const { traceEvents: events } = JSON.parse((await browser.stopTracing()).toString()) as { traceEvents: TraceEvent[] };
  const thread = (e: TraceEvent) => `${e.pid} ${e.tid}`;
  const tasks = events.filter((e) => e.ph === "X" && e.name.endsWith("RunTask") && e.dur !== undefined);
  // Of pages that are not looked at there may be threads of the same name.
  const mains = new Set(events.filter((e) => e.name === "thread_name" && e.args.name === "CrRendererMain").map(thread));
  const all = tasks.filter((e) => mains.has(thread(e)));
  if (all.length === 0) throw new Error("the trace has no task of the page");
  const ms = (of: (e: TraceEvent) => number | undefined) => all.reduce((most, e) => Math.max(most, of(e) ?? 0), 0) / 1000;
  // On a virtual machine the clock of a thread jumps now and then: one thread cannot have
  // more of the processor than time has passed.
  return { wall: ms((e) => e.dur), cpu: ms((e) => Math.min(e.tdur ?? 0, e.dur ?? 0)) };
}

interface HeapUsage {
  usedSize: number;
  embedderHeapUsedSize?: number;
  backingStorageSize?: number;
}

const bytes = (u: HeapUsage) => u.usedSize + (u.embedderHeapUsedSize ?? 0) + (u.backingStorageSize ?? 0);

/** Heaps looks at the memory of a page, and of its worker. */
export class Heaps {
  readonly #session: CDPSession;
  #worker = "";
  #asked = 0;
  #waiting = new Map<number, (answer: { result?: unknown; error?: { message: string } }) => void>();

  private constructor(session: CDPSession) {
    this.#session = session;
  }

  static async of(page: Page): Promise<Heaps> {
    const session = await page.context().newCDPSession(page);
    const heaps = new Heaps(session);
    session.on("Target.attachedToTarget", (e) => {
      if (e.targetInfo.type === "worker") heaps.#worker = e.sessionId;
    });
    session.on("Target.receivedMessageFromTarget", (e) => {
      const answer = JSON.parse(e.message) as { id?: number; result?: unknown; error?: { message: string } };
      if (answer.id === undefined) return;
      heaps.#waiting.get(answer.id)?.(answer);
      heaps.#waiting.delete(answer.id);
    });
    // Not flat: a session of Playwright cannot speak to those below it.
    await session.send("Target.setAutoAttach", { autoAttach: true, waitForDebuggerOnStart: false, flatten: false });
    if (!heaps.#worker) throw new Error("the page has no worker that could be looked at");
    return heaps;
  }

  async #ask(method: string): Promise<unknown> {
    const id = ++this.#asked;
    const answer = new Promise<{ result?: unknown; error?: { message: string } }>((resolve) => this.#waiting.set(id, resolve));
    await this.#session.send("Target.sendMessageToTarget", { sessionId: this.#worker, message: JSON.stringify({ id, method }) });
    const { result, error } = await answer;
    if (error) throw new Error(`${method} of the worker: ${error.message}`);
    return result;
  }

  /** look returns bytes in use when nothing is left to be collected. */
  async look(): Promise<{ page: number; worker: number }> {
    // What one collection frees, another one may find unused.
    for (let i = 0; i < 2; i++) {
      await this.#session.send("HeapProfiler.collectGarbage");
      await this.#ask("HeapProfiler.collectGarbage");
    }
    return {
      page: bytes((await this.#session.send("Runtime.getHeapUsage")) as HeapUsage),
      worker: bytes((await this.#ask("Runtime.getHeapUsage")) as HeapUsage),
    };
  }
}

export interface Sample {
  /** Milliseconds. */
  at: number;
  bytes: number;
}

/** How a heap went on after it had warmed up. */
export interface Course {
  /** The mean, in bytes. */
  level: number;
  /** By how much a straight line through the samples rises from the first to the last, in bytes. */
  rise: number;
  /** By how much the mean of the last third is above that of the first, in bytes. */
  thirds: number;
  /** What both may be: 5 % of the level, and 512 kB. */
  tolerance: number;
}

/** courseOf leaves the first fifth out, in which code is compiled and caches fill. */
export function courseOf(all: Sample[]): Course {
  const samples = all.slice(Math.ceil(all.length / 5));
  if (samples.length < 6) throw new Error(`${all.length} samples are too few to tell whether a heap grows: watch it for longer`);
  const mean = (of: number[]) => of.reduce((sum, x) => sum + x, 0) / of.length;
  const level = mean(samples.map((s) => s.bytes));
  const middle = mean(samples.map((s) => s.at));
  const slope = samples.reduce((sum, s) => sum + (s.at - middle) * (s.bytes - level), 0) / samples.reduce((sum, s) => sum + (s.at - middle) ** 2, 0);
  const third = Math.floor(samples.length / 3);
  const part = (from: number, to?: number) => mean(samples.slice(from, to).map((s) => s.bytes));
  return {
    level,
    rise: slope * (samples.at(-1)!.at - samples[0]!.at),
    thirds: part(-third) - part(0, third),
    tolerance: 0.05 * level + 512_000,
  };
}

export const grows = (course: Course) => Math.max(course.rise, course.thirds) > course.tolerance;
