// What happened to a notebook: image changes from the history, and what its watch
// has told since the page was opened.

import type { ImageChange, Notebook } from "../api/types";
import { merge } from "./history";

export interface FieldChange {
  path: string;
  from: string;
  to: string;
}

export type Seen =
  | { kind: "modified"; time: number; fields: FieldChange[] }
  | { kind: "deleted"; time: number }
  | { kind: "back"; time: number };

export type Entry = { kind: "change"; time: number; change: ImageChange } | Seen;

/** timeline merges both, newest first. */
export function timeline(changes: readonly ImageChange[], seen: readonly Seen[]): Entry[] {
  const entries: Entry[] = [
    ...merge(changes).map((change): Entry => ({ kind: "change", time: Date.parse(change.createTime ?? "") || 0, change })),
    ...seen,
  ];
  return entries.map((entry, i) => ({ entry, i })).sort((a, b) => b.entry.time - a.entry.time || b.i - a.i).map(({ entry }) => entry);
}

const camel = (part: string) => part.replace(/_(\w)/g, (_, letter: string) => letter.toUpperCase());

/** valueAt is the value at a path of the contract, such as `image.uri` or `attributes.a.b`, as a text. */
export function valueAt(notebook: Notebook | undefined, path: string): string {
  if (!notebook) return "";
  const attribute = /^attributes\.(.*)$/s.exec(path)?.[1];
  if (attribute !== undefined) return notebook.attributes?.[attribute.replace(/^"(.*)"$/s, "$1")] ?? "";
  let value: unknown = notebook;
  for (const part of path.split(".")) value = typeof value === "object" && value !== null ? (value as Record<string, unknown>)[camel(part)] : undefined;
  return textOf(value);
}

function textOf(value: unknown): string {
  if (value === undefined || value === null) return "";
  if (Array.isArray(value)) return value.map(textOf).join(", ");
  if (typeof value === "object") {
    return Object.entries(value)
      .map(([name, v]) => `${name}: ${textOf(v)}`)
      .join(", ");
  }
  return String(value);
}

// What moves by itself and is no news.
const quiet: ReadonlySet<string> = new Set(["name", "etag", "observe_time", "update_time", "resources.accelerator.available_count"]);

const snake = (part: string) => part.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);

function flatten(value: unknown, path: string, out: Map<string, string>): void {
  if (typeof value === "object" && value !== null && !Array.isArray(value)) {
    for (const [name, v] of Object.entries(value)) flatten(v, path ? `${path}.${path === "attributes" ? name : snake(name)}` : snake(name), out);
  } else out.set(path, textOf(value));
}

/** differences finds the paths in which two versions differ, for what a watch tells anew instead of as a change. */
export function differences(before: Notebook, after: Notebook): string[] {
  const was = new Map<string, string>();
  const is = new Map<string, string>();
  flatten(before, "", was);
  flatten(after, "", is);
  return [...new Set([...was.keys(), ...is.keys()])].filter((path) => !quiet.has(path) && was.get(path) !== is.get(path)).sort();
}

/** changed tells the fields of a new version, old and new. */
export function changed(before: Notebook | undefined, after: Notebook, paths: readonly string[] | undefined): FieldChange[] {
  const all = paths && paths.length > 0 ? paths : before ? differences(before, after) : [];
  return all.map((path) => ({ path, from: valueAt(before, path), to: valueAt(after, path) }));
}
