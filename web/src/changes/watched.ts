// What the watch of one notebook makes known of it.

import type { ApiError } from "../api/errors";
import type { ImageChange, Location, Notebook, WatchResponse } from "../api/types";
import { newer } from "./phases";
import { changed, type Seen } from "./timeline";

export interface Watched {
  /** The latest version, or the last one of a notebook that is gone. */
  notebook?: Notebook;
  location?: Location;
  /** Whether all that exists has been told. */
  complete: boolean;
  /** False while a snapshot is told anew that has not had this notebook yet. */
  told?: boolean;
  /** When it was seen to be gone. */
  deletedAt?: number;
  /** What was seen since the watch was opened, oldest first. */
  seen: Seen[];
  changes: ReadonlyMap<string, ImageChange>;
  refused?: ApiError;
}

/** What is known before the first frame. */
export const nothing: Watched = { complete: false, seen: [], changes: new Map() };

/** The most events that are kept: a page may be open for days. */
const most = 500;

/** step is what a frame makes of what was known. */
export function step(known: Watched, frame: WatchResponse, name: string, at: number): Watched {
  if (frame.location) return { ...known, location: frame.location };
  if (frame.imageChange?.name) {
    const latest = newer(known.changes.get(frame.imageChange.name), frame.imageChange) ?? frame.imageChange;
    return { ...known, changes: new Map(known.changes).set(frame.imageChange.name, latest) };
  }
  // What was told before is told again: one that is not is gone.
  if (frame.reset) return { ...known, complete: false, told: false };
  if (frame.bookmark?.kind === "KIND_SNAPSHOT_END") {
    const { told, ...rest } = known;
    const missing = told === false && known.notebook && known.deletedAt === undefined;
    return missing ? { ...rest, complete: true, deletedAt: at, seen: keep(known.seen, { kind: "deleted", time: at }) } : { ...rest, complete: true };
  }
  const event = frame.notebook;
  if (!event || event.notebook.name !== name) return known;
  if (event.type === "TYPE_DELETED") {
    return { ...known, notebook: event.notebook, deletedAt: at, seen: keep(known.seen, { kind: "deleted", time: at }) };
  }
  const { deletedAt, told: _told, ...rest } = known;
  const seen: Seen[] = [];
  if (deletedAt !== undefined) seen.push({ kind: "back", time: at });
  if (known.notebook && known.notebook.etag !== event.notebook.etag) {
    const fields = changed(known.notebook, event.notebook, event.changedFields);
    if (fields.length > 0) seen.push({ kind: "modified", time: at, fields });
  }
  return { ...rest, notebook: event.notebook, seen: keep(known.seen, ...seen) };
}

const keep = (seen: Seen[], ...more: Seen[]) => (more.length === 0 ? seen : [...seen, ...more].slice(-most));
