// What the page knows from its one watch. The rows are in a worker; here is what
// the views share.

import { effect, signal } from "@preact/signals";
import { ApiError } from "../api/errors";
import { getCaller, getConsoleConfig, listClouds } from "../api/client";
import { caller, consoleConfig, signedOut, token } from "../api/session";
import { Stream, type StreamState } from "../api/stream";
import type { Cloud, ImageChange, Location } from "../api/types";

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

async function readClouds(): Promise<void> {
  if (document.visibilityState !== "visible" || signedOut.peek()) return;
  try {
    clouds.value = await listClouds();
    cloudsError.value = undefined;
  } catch (cause) {
    if (cause instanceof ApiError) cloudsError.value = cause;
  }
}

let watch: Stream | undefined;
let asked = 0;

function start(): void {
  watch ??= new Stream({
    url: "/v1/notebooks:watch?snapshot=SNAPSHOT_SKIP",
    token,
    onState: (state) => (connection.value = state),
    onFrames: (frames) => {
      const places = new Map(locations.peek());
      const changes = new Map(imageChanges.peek());
      for (const { location, imageChange } of frames) {
        if (location) places.set(location.name, location);
        if (imageChange?.name) changes.set(imageChange.name, imageChange);
      }
      if (frames.some((f) => f.location)) {
        locations.value = places;
        clearTimeout(asked);
        asked = window.setTimeout(readClouds, 300);
      }
      if (frames.some((f) => f.imageChange)) imageChanges.value = changes;
    },
  });
  void readClouds();
}

async function ask(): Promise<void> {
  try {
    consoleConfig.value ??= await getConsoleConfig();
  } catch (cause) {
    if (!(cause instanceof ApiError) || cause.http !== 404) {
      setTimeout(ask, 2000);
      return;
    }
    consoleConfig.value = { auth: { required: false } };
  }
  try {
    caller.value = await getCaller();
  } catch (cause) {
    if (!(cause instanceof ApiError) || cause.reason === "UNAUTHENTICATED") return;
    if (cause.http === 404) caller.value = { method: "METHOD_NONE", grants: [{ role: "ROLE_ADMIN", parent: "clouds/-" }] };
    else setTimeout(ask, 2000);
  }
}

/** begin asks who has to sign in how, and starts the watch once somebody is. */
export function begin(): void {
  effect(() => {
    if (signedOut.value || !caller.value?.grants?.length) {
      watch?.close();
      watch = undefined;
    } else start();
  });
  setInterval(readClouds, 10_000);
  document.addEventListener("visibilitychange", readClouds);
  void ask();
}
