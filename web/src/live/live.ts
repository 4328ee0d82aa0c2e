// What the page knows from its one watch. The rows are in a worker; here is what
// the views share.

import { signal } from "@preact/signals";
import type { StreamState } from "../api/stream";
import type { ImageChange, Location } from "../api/types";

/** How the watch is doing. */
export const connection = signal<StreamState>({ kind: "connecting" });

/** Locations by name, as last told. */
export const locations = signal<ReadonlyMap<string, Location>>(new Map());

/** Image changes that were told since the page was opened, by name. */
export const imageChanges = signal<ReadonlyMap<string, ImageChange>>(new Map());

/** begin asks who has to sign in how, and starts the watch once somebody is. */
export function begin(): void {}
