// What the page knows from its one watch. The rows are in a worker; here is what
// the views share.

import { effect, signal } from "@preact/signals";
import { getCaller, getConsoleConfig, listClouds } from "../api/client";
import { ApiError } from "../api/errors";
import { caller, consoleConfig, onUnauthenticated, signedOut, token } from "../api/session";
import type { StreamState } from "../api/stream";
import type { Cloud, ImageChange, Location } from "../api/types";
import type { Report, Request, SentError } from "./protocol";
import type { Arrangement, Window } from "./store";

/** How the watch is doing. */
export const connection = signal<StreamState>({ kind: "connecting" });

/** Locations by name, as last told. */
export const locations = signal<ReadonlyMap<string, Location>>(new Map());

/** Image changes that were told since the page was opened, by name. */
export const imageChanges = signal<ReadonlyMap<string, ImageChange>>(new Map());

/** Clouds as CloudService tells them; undefined until it has. */
export const clouds = signal<Cloud[] | undefined>(undefined);

/** Why the clouds could not be read the last time. */
export const cloudsError = signal<ApiError | undefined>(undefined);

/** The lines of the table that were asked for last, and the sums; undefined until there are any. */
export const lines = signal<Window | undefined>(undefined);

/** The filter that was asked for last and, if the server does not take it, why. */
export const filterState = signal<{ filter: string; error: ApiError | undefined; pending: boolean }>({ filter: "", error: undefined, pending: true });

const errorOf = (error: SentError) => new ApiError(error.http, error.status);

/** How many image changes are remembered; older ones are in the history. */
const mostChanges = 500;

let worker: Worker | undefined;
let watching = false;
const waiting = new Map<number, (values: string[]) => void>();
let asked = 0;
let readSoon = 0;
let readAgain = 0;

const tell = (request: Request) => worker?.postMessage(request);

function onReport(report: Report): void {
  switch (report.kind) {
    case "state": {
      const { state } = report;
      const before = connection.peek().kind;
      if (state.kind === "lost" || state.kind === "refused") {
        const error = errorOf(state.error);
        if (error.reason === "UNAUTHENTICATED") {
          onUnauthenticated(error);
          return;
        }
        connection.value = { ...state, error };
        if (state.kind === "refused") void askCaller(); // the role may be gone
      } else {
        connection.value = state;
        if (state.kind === "open" && before !== "open") {
          void readClouds();
          if (before === "lost") void askCaller();
        }
      }
      break;
    }
    case "filter":
      if (report.filter === filterState.peek().filter) {
        filterState.value = { filter: report.filter, error: report.error ? errorOf(report.error) : undefined, pending: false };
      }
      break;
    case "window":
      lines.value = report.window;
      break;
    case "told": {
      if (report.locations.length > 0) {
        const places = new Map(locations.peek());
        for (const location of report.locations) places.set(location.name, location);
        locations.value = places;
        clearTimeout(readSoon);
        readSoon = window.setTimeout(readClouds, 300);
      }
      if (report.imageChanges.length > 0) {
        const changes = new Map(imageChanges.peek());
        for (const change of report.imageChanges) if (change.name) changes.set(change.name, change);
        for (const name of changes.keys()) {
          if (changes.size <= mostChanges) break;
          changes.delete(name); // the oldest first
        }
        imageChanges.value = changes;
      }
      break;
    }
    case "values":
      waiting.get(report.id)?.(report.values);
      waiting.delete(report.id);
      break;
  }
}

/** setFilter watches with a filter. What was watched stays until the server has taken it. */
export function setFilter(filter: string): void {
  if (filter === filterState.peek().filter) return;
  filterState.value = { filter, error: undefined, pending: true };
  if (watching) tell({ kind: "watch", filter, token: token() });
}

/** arrange sorts and groups the lines. */
export function arrange(arrangement: Arrangement): void {
  tell({ kind: "arrange", arrangement });
}

/** What is looked at; the worker may begin later than the view that asks. */
let view = { from: 0, to: 60 };

/** look asks for the lines from..to, which come as `lines`. */
export function look(from: number, to: number): void {
  view = { from, to };
  tell({ kind: "window", ...view });
}

/** valuesOf returns values that a field has in what is watched, for completion. */
export async function valuesOf(field: string, prefix: string): Promise<string[]> {
  const id = ++asked;
  return await new Promise((resolve) => {
    waiting.set(id, resolve);
    tell({ kind: "values", id, field, prefix });
  });
}

/** readClouds asks how the clouds do, and soon again when that fails. */
export async function readClouds(): Promise<void> {
  if (document.visibilityState !== "visible" || !watching) return;
  clearTimeout(readAgain);
  try {
    const told = await listClouds();
    if (!watching) return; // somebody has signed out since
    clouds.value = told;
    cloudsError.value = undefined;
  } catch (cause) {
    if (!watching || !(cause instanceof ApiError)) return;
    cloudsError.value = cause;
    readAgain = window.setTimeout(readClouds, Math.max(2000, cause.retryAfter ?? 0));
  }
}

async function askCaller(): Promise<void> {
  const sent = token();
  try {
    const who = await getCaller();
    if (token() === sent) caller.value = who; // or somebody has signed in since
  } catch (cause) {
    if (!(cause instanceof ApiError) || cause.reason === "UNAUTHENTICATED") return; // the call has told the session
    if (cause.own && cause.http === 404) caller.value = { method: "METHOD_NONE", grants: [{ role: "ROLE_ADMIN", parent: "clouds/-" }] };
    else if (!caller.peek()) setTimeout(askCaller, 2000);
  }
}

async function ask(): Promise<void> {
  try {
    consoleConfig.value ??= await getConsoleConfig();
  } catch (cause) {
    if (!(cause instanceof ApiError) || !cause.own || cause.http !== 404) {
      setTimeout(ask, 2000);
      return;
    }
    consoleConfig.value = { auth: { required: false } };
  }
  await askCaller();
}

/** begin asks who has to sign in how, and watches for as long as somebody may. */
export function begin(): void {
  worker = new Worker(new URL("./worker.ts", import.meta.url), { type: "module" });
  worker.onmessage = (event: MessageEvent<Report>) => onReport(event.data);
  look(view.from, view.to);
  effect(() => {
    const may = !signedOut.value && (caller.value?.grants ?? []).length > 0;
    if (may === watching) return;
    watching = may;
    if (may) {
      tell({ kind: "watch", filter: filterState.peek().filter, token: token() });
      void readClouds();
    } else {
      tell({ kind: "stop" });
      // Whoever signs in next may see something else.
      lines.value = undefined;
      locations.value = new Map();
      imageChanges.value = new Map();
      clouds.value = undefined;
      cloudsError.value = undefined;
    }
  });
  effect(() => {
    if (caller.value) tell({ kind: "token", token: token() }); // it may have been renewed
  });
  setInterval(readClouds, 10_000);
  document.addEventListener("visibilitychange", readClouds);
  void ask();
}
