// The rows of the table: what a watch told, sorted, grouped, and cut into windows. It
// knows neither the worker that it runs in nor the page.

import type { Notebook, NotebookState, WatchResponse } from "../api/types";

/** Row is what the table shows of a notebook, and no more: there may be very many. */
export interface Row {
  name: string;
  display: string;
  state: NotebookState;
  cloud: string;
  location: string;
  image: string;
  accelerator: string;
  cards: number;
  cpu: number;
  /** Bytes. */
  memory: number;
  owner: string;
  /** Milliseconds since 1970; 0 when unknown. */
  created: number;
  /** The same; 0 when nothing is planned. */
  expires: number;
  /** When this page saw it change; 0 when it did not. */
  changed: number;
}

export type GroupBy = "" | "cloud" | "location" | "state" | "image" | "owner" | "accelerator";
export const groupings: GroupBy[] = ["", "cloud", "location", "state", "image", "owner", "accelerator"];

export type SortKey = "name" | "display" | "state" | "location" | "image" | "cards" | "cpu" | "owner" | "created" | "expires";
export const sortKeys: SortKey[] = ["name", "display", "state", "location", "image", "cards", "cpu", "owner", "created", "expires"];

export interface Arrangement {
  group: GroupBy;
  sort: SortKey;
  descending: boolean;
  /** Keys of the groups that are folded. */
  folded: string[];
}

/** Head is the line above a group. */
export interface Head {
  head: string;
  count: number;
  states: Partial<Record<NotebookState, number>>;
  folded: boolean;
}

export type Item = Row | Head;

export interface Window {
  /** Lines of the table: rows, and heads of groups. */
  lines: number;
  /** Rows, those in folded groups too. */
  total: number;
  states: Partial<Record<NotebookState, number>>;
  /** Whether everything that exists has been told. */
  complete: boolean;
  from: number;
  items: Item[];
}

const stateOrder: Record<NotebookState, number> = {
  STATE_UNSPECIFIED: 0,
  STATE_CREATING: 1,
  STATE_STARTING: 2,
  STATE_RUNNING: 3,
  STATE_STOPPING: 4,
  STATE_STOPPED: 5,
  STATE_FAILED: 6,
};

function rowOf(n: Notebook, changed: number): Row {
  const [, cloud = "", , location = ""] = n.name.split("/");
  const accelerator = n.resources?.accelerator;
  const cards = accelerator?.count ?? 0;
  return {
    name: n.name,
    display: n.displayName || n.name.slice(n.name.lastIndexOf("/") + 1),
    state: n.state ?? "STATE_UNSPECIFIED",
    cloud,
    location,
    image: n.image?.uri || n.image?.displayName || "",
    accelerator: accelerator?.model || accelerator?.type || "",
    cards,
    cpu: n.resources?.cpuCores ?? 0,
    memory: Number(n.resources?.memoryBytes ?? 0),
    owner: n.ownerId ?? "",
    created: n.createTime ? Date.parse(n.createTime) : 0,
    expires: n.expireTime ? Date.parse(n.expireTime) : 0,
    changed,
  };
}

function before(a: string | number, b: string | number): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

function valueOf(row: Row, key: SortKey): string | number {
  switch (key) {
    case "state":
      return stateOrder[row.state];
    case "location":
      return `${row.cloud}/${row.location}`;
    default:
      return row[key];
  }
}

/** groupOf is the group that a row belongs to. */
export function groupOf(row: Row, by: GroupBy): string {
  switch (by) {
    case "":
      return "";
    case "location":
      return `clouds/${row.cloud}/locations/${row.location}`;
    default:
      return row[by];
  }
}

/** Store holds the rows of one watch. */
export class Store {
  #rows = new Map<string, Row>();
  #sorted: Row[] = [];
  #items: Item[] = [];
  #states: Partial<Record<NotebookState, number>> = {};
  #stale = false;
  /** Rows that the snapshot under way has told; undefined when there is none. */
  #told: Set<string> | undefined = new Set();
  #complete = false;
  #arrangement: Arrangement = { group: "", sort: "name", descending: false, folded: [] };
  #now: () => number;

  constructor(now: () => number = Date.now) {
    this.#now = now;
  }

  get size(): number {
    return this.#rows.size;
  }

  /** apply takes frames over, and reports whether anything is to be shown anew. */
  apply(frames: WatchResponse[]): boolean {
    let dirty = false;
    for (const frame of frames) {
      if (frame.reset) {
        // What is known stays on the screen until the snapshot has told what there is.
        this.#told = new Set();
        this.#complete = false;
        dirty = true;
      } else if (frame.notebook) {
        const { type, notebook } = frame.notebook;
        if (type === "TYPE_DELETED" || type === "TYPE_LEFT_FILTER") this.#rows.delete(notebook.name);
        else {
          const known = this.#rows.get(notebook.name);
          const fresh = rowOf(notebook, frame.notebook.initial ? (known?.changed ?? 0) : this.#now());
          // The same object is kept, so that it keeps its place in what is sorted.
          if (known) Object.assign(known, fresh);
          else {
            this.#rows.set(fresh.name, fresh);
          }
          this.#told?.add(notebook.name);
        }
        dirty = true;
      } else if (frame.bookmark?.kind === "KIND_SNAPSHOT_END") {
        if (this.#told) for (const name of this.#rows.keys()) if (!this.#told.has(name)) this.#rows.delete(name);
        this.#told = undefined;
        this.#complete = true;
        dirty = true;
      }
    }
    this.#stale ||= dirty;
    return dirty;
  }

  /**
   * again is called when a watch is opened that begins with a snapshot, without a reset.
   * What an earlier snapshot told before it was cut off may be gone.
   */
  again(): void {
    this.#told = new Set();
    this.#complete = false;
  }

  arrange(arrangement: Arrangement): void {
    this.#arrangement = arrangement;
    this.#stale = true;
  }

  window(from: number, to: number): Window {
    if (this.#stale) this.#rebuild();
    const start = Math.max(0, Math.min(from, this.#items.length));
    return {
      lines: this.#items.length,
      total: this.#rows.size,
      states: this.#states,
      complete: this.#complete,
      from: start,
      items: this.#items.slice(start, Math.max(start, to)),
    };
  }

  /** values are those that a field has, those of most rows first, for completion. */
  values(of: (row: Row) => string, prefix: string, most: number): string[] {
    const counts = new Map<string, number>();
    const wanted = prefix.toLowerCase();
    for (const row of this.#rows.values()) {
      const value = of(row);
      if (value && value.toLowerCase().includes(wanted)) counts.set(value, (counts.get(value) ?? 0) + 1);
    }
    return [...counts].sort((a, b) => b[1] - a[1] || before(a[0], b[0])).slice(0, most).map(([value]) => value);
  }

  #rebuild(): void {
    this.#stale = false;
    const { group, sort, descending, folded } = this.#arrangement;
    // What was sorted before nearly is so still, and is sorted fast.
    const kept = this.#sorted.filter((row) => this.#rows.get(row.name) === row);
    if (kept.length < this.#rows.size) {
      const have = new Set(kept);
      for (const row of this.#rows.values()) if (!have.has(row)) kept.push(row);
    }
    const sign = descending ? -1 : 1;
    kept.sort((a, b) => sign * before(valueOf(a, sort), valueOf(b, sort)) || before(a.name, b.name));
    this.#sorted = kept;
    this.#states = {};
    for (const row of kept) this.#states[row.state] = (this.#states[row.state] ?? 0) + 1;
    if (group === "") {
      this.#items = kept;
      return;
    }
    const groups = new Map<string, Row[]>();
    for (const row of kept) {
      const key = groupOf(row, group);
      const rows = groups.get(key);
      if (rows) rows.push(row);
      else groups.set(key, [row]);
    }
    const shut = new Set(folded);
    const items: Item[] = [];
    const rank = (key: string) => (group === "state" ? stateOrder[key as NotebookState] : key);
    for (const [key, rows] of [...groups].sort((a, b) => before(rank(a[0]), rank(b[0])))) {
      const states: Partial<Record<NotebookState, number>> = {};
      for (const row of rows) states[row.state] = (states[row.state] ?? 0) + 1;
      items.push({ head: key, count: rows.length, states, folded: shut.has(key) });
      if (!shut.has(key)) for (const row of rows) items.push(row);
    }
    this.#items = items;
  }
}
