// Many image changes: merged, filtered, and what to go back to.

import { quote } from "../api/quote";
import type { ImageChange } from "../api/types";
import { newer, notebookOf } from "./phases";

/** merge puts changes together by name, the latest record of each, newest first. */
export function merge(...lists: Iterable<ImageChange>[]): ImageChange[] {
  const all = new Map<string, ImageChange>();
  for (const list of lists) {
    for (const change of list) {
      const latest = change.name ? newer(all.get(change.name), change) : undefined;
      if (latest?.name) all.set(latest.name, latest);
    }
  }
  return [...all.values()].sort((a, b) => Date.parse(b.createTime ?? "") - Date.parse(a.createTime ?? "") || (a.name ?? "").localeCompare(b.name ?? ""));
}

export interface Target {
  /** The notebook to change. */
  notebook: string;
  image: string;
  /** The kind of image, as far as it is known. */
  type?: string;
}

/** repeatOf is what a change asked for, once more. */
export function repeatOf(change: ImageChange): Target | undefined {
  const notebook = notebookOf(change);
  if (!notebook || !change.toImage) return undefined;
  return { notebook, image: change.toImage, ...(change.imageType ? { type: change.imageType } : {}) };
}

/**
 * backOf is what undoes a change that succeeded. A record says the kind of the new
 * image only, so that of the old one is looked for in earlier changes of the notebook.
 */
export function backOf(change: ImageChange, changes: readonly ImageChange[]): Target | undefined {
  if (change.phase !== "PHASE_SUCCEEDED" || !change.fromImage || change.fromImage === change.toImage) return undefined;
  const before = changes.filter(
    (c) =>
      c.phase === "PHASE_SUCCEEDED" &&
      c.toImage === change.fromImage &&
      c.imageType &&
      (c.notebook === change.notebook || c.newNotebook === change.notebook) &&
      Date.parse(c.createTime ?? "") <= Date.parse(change.createTime ?? ""),
  );
  const type = merge(before)[0]?.imageType;
  return { notebook: notebookOf(change), image: change.fromImage, ...(type ? { type } : {}) };
}

/** previousOf is the image that a notebook had before its last change that succeeded. */
export function previousOf(notebook: string, changes: readonly ImageChange[]): Target | undefined {
  const last = merge(changes).find((c) => c.phase === "PHASE_SUCCEEDED" && notebookOf(c) === notebook);
  return last && backOf(last, changes);
}

export const chips = ["failed", "unknown", "day", "mine"] as const;
export type Chip = (typeof chips)[number];

export function parseChips(text: string | null): Set<Chip> {
  return new Set(chips.filter((c) => text?.split(",").includes(c)));
}

/**
 * filterOf puts what was typed and the chips into one filter. What was typed comes
 * first, so that the position of a fault in it is that in the field.
 */
export function filterOf(typed: string, on: ReadonlySet<Chip>, subject: string | undefined, at: number): string {
  const parts = typed.trim() ? [typed] : [];
  const phases = [...(on.has("failed") ? ["phase = FAILED"] : []), ...(on.has("unknown") ? ["phase = OUTCOME_UNKNOWN"] : [])];
  if (phases.length > 0) parts.push(phases.join(" OR "));
  if (on.has("day")) parts.push(`create_time >= ${new Date(at - 86_400_000).toISOString().replace(/\.\d+Z$/, "Z")}`);
  if (on.has("mine") && subject !== undefined) parts.push(`principal = ${quote(subject)}`);
  // OR binds tighter than AND, so that no parentheses are needed.
  return parts.join(" AND ");
}

/** positionOf is where a filter is wrong, if the server's words say so: in bytes from 0. */
export function positionOf(problem: string): number | undefined {
  const match = /at position (\d+)/.exec(problem);
  return match ? Number(match[1]) : undefined;
}

/** characterAt turns a position in bytes into one in characters of a text. */
export function characterAt(text: string, bytes: number): number {
  const encoded = new TextEncoder().encode(text);
  return new TextDecoder().decode(encoded.slice(0, bytes)).length;
}
