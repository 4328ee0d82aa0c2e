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
  /** Of two rows of one name, whether of one store or of two, those with one revision are the same. */
  revision: number;
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

type States = Partial<Record<NotebookState, number>>;

/** Head is the line above a group. */
export interface Head {
  head: string;
  count: number;
  states: States;
  folded: boolean;
}

export type Item = Row | Head;

export interface Window {
  /** Lines of the table: rows, and heads of groups. */
  lines: number;
  /** Rows, those in folded groups too. */
  total: number;
  states: States;
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

/** statesOf are the states that there are, in the order of a notebook's life. */
export function statesOf(states: States): [NotebookState, number][] {
  return (Object.keys(stateOrder) as NotebookState[]).flatMap((state) => (states[state] ? [[state, states[state]]] : []));
}

/** The last revision that a row of any store was given. */
let revisions = 0;

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
    revision: ++revisions,
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

type Order = (a: Row, b: Row) => number;

/** orderOf puts rows in order by what is asked for, and by name between equals. */
function orderOf({ sort, descending }: Arrangement): Order {
  if (sort === "name") return descending ? (a, b) => before(b.name, a.name) : (a, b) => before(a.name, b.name);
  const sign = descending ? -1 : 1;
  if (sort === "location") return (a, b) => sign * (before(a.cloud, b.cloud) || before(a.location, b.location)) || before(a.name, b.name);
  return (a, b) => sign * before(valueOf(a, sort), valueOf(b, sort)) || before(a.name, b.name);
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

function count(states: States, state: NotebookState, by: 1 | -1): void {
  const sum = (states[state] ?? 0) + by;
  if (sum > 0) states[state] = sum;
  else delete states[state];
}

/**
 * Group is the rows that stand together, in order. They are put in order only when they
 * are looked at; then what has come and gone since is put in and taken out, and the
 * others, of which there may be very many, are not compared again.
 */
class Group {
  readonly states: States = {};
  #rows: Row[] = [];
  /** Those of #rows that do not belong there any more. */
  #gone = new Set<Row>();
  /** Those that are not in #rows yet. */
  #come = new Set<Row>();
  #order: Order | undefined;

  constructor(readonly key: string) {}

  get size(): number {
    return this.#rows.length - this.#gone.size + this.#come.size;
  }

  add(row: Row): void {
    this.#come.add(row);
  }

  remove(row: Row): void {
    if (!this.#come.delete(row)) this.#gone.add(row);
  }

  /** rows are all, in order. */
  rows(order: Order): Row[] {
    if (this.#order === order && this.#gone.size === 0 && this.#come.size === 0) return this.#rows;
    const stay = this.#gone.size > 0 ? this.#rows.filter((row) => !this.#gone.has(row)) : this.#rows;
    const come = [...this.#come];
    // From a good part of all on, sorting everything is the faster way.
    if (this.#order !== order || come.length > stay.length / 16) this.#rows = stay.concat(come).sort(order);
    else if (come.length > 0) this.#rows = insert(stay, come.sort(order), order);
    else this.#rows = stay;
    this.#order = order;
    this.#gone = new Set();
    this.#come = new Set();
    return this.#rows;
  }
}

/** insert puts a few rows in between many, both in order. */
function insert(rows: Row[], few: Row[], order: Order): Row[] {
  const all: Row[] = [];
  let at = 0;
  for (const row of few) {
    let end = rows.length;
    for (let start = at; start < end; ) {
      const middle = (start + end) >> 1;
      if (order(rows[middle]!, row) < 0) start = middle + 1;
      else end = middle;
    }
    while (at < end) all.push(rows[at++]!);
    all.push(row);
  }
  while (at < rows.length) all.push(rows[at++]!);
  return all;
}

/** Store holds the rows of one watch. */
export class Store {
  #rows = new Map<string, Row>();
  #groups = new Map<string, Group>();
  /** The groups in order; undefined when there is another one, or one less. */
  #ordered: Group[] | undefined;
  #states: States = {};
  /** Rows that the snapshot under way has told; undefined when there is none. */
  #told: Set<string> | undefined = new Set();
  #complete = false;
  #arrangement: Arrangement = { group: "", sort: "name", descending: false, folded: [] };
  #order: Order = orderOf(this.#arrangement);
  #now: () => number;

  constructor(now: () => number = Date.now) {
    this.#now = now;
  }

  get size(): number {
    return this.#rows.size;
  }

  /** Whether everything that exists has been told. */
  get complete(): boolean {
    return this.#complete;
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
        const known = this.#rows.get(notebook.name);
        if (type === "TYPE_DELETED" || type === "TYPE_LEFT_FILTER") {
          if (known) this.#delete(known);
        } else {
          this.#set(known, rowOf(notebook, frame.notebook.initial ? (known?.changed ?? 0) : this.#now()));
          this.#told?.add(notebook.name);
        }
        dirty = true;
      } else if (frame.bookmark?.kind === "KIND_SNAPSHOT_END") {
        if (this.#told) for (const row of this.#rows.values()) if (!this.#told.has(row.name)) this.#delete(row);
        this.#told = undefined;
        this.#complete = true;
        dirty = true;
      }
    }
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
    const { group, sort, descending } = this.#arrangement;
    this.#arrangement = arrangement;
    if (arrangement.sort !== sort || arrangement.descending !== descending) this.#order = orderOf(arrangement);
    if (arrangement.group === group) return;
    this.#groups = new Map();
    this.#ordered = undefined;
    for (const row of this.#rows.values()) this.#enter(row);
  }

  /** window cuts lines out. At the end it begins earlier, so that it has as many as elsewhere. */
  window(from: number, to: number): Window {
    const { group: by, folded } = this.#arrangement;
    const shut = new Set(folded);
    const groups = (this.#ordered ??= this.#inOrder());
    let lines = 0;
    for (const group of groups) lines += (by === "" ? 0 : 1) + (by !== "" && shut.has(group.key) ? 0 : group.size);
    const end = Math.min(to, lines);
    const start = Math.max(0, Math.min(from, end - (to - from)));
    const items: Item[] = [];
    let at = 0; // the line where the next thing is
    for (const group of groups) {
      if (at >= end) break;
      if (by !== "") {
        const isShut = shut.has(group.key);
        if (at >= start) items.push({ head: group.key, count: group.size, states: group.states, folded: isShut });
        at++;
        if (isShut) continue;
      }
      if (at + group.size > start && at < end) {
        const rows = group.rows(this.#order);
        for (let i = Math.max(0, start - at); i < rows.length && at + i < end; i++) items.push(rows[i]!);
      }
      at += group.size;
    }
    return { lines, total: this.#rows.size, states: this.#states, complete: this.#complete, from: start, items };
  }

  /** values are those that a field has, those of most rows first, for completion. */
  values(of: (row: Row) => string, prefix: string, most: number): string[] {
    const counts = new Map<string, number>();
    for (const row of this.#rows.values()) {
      const value = of(row);
      counts.set(value, (counts.get(value) ?? 0) + 1);
    }
    const wanted = prefix.toLowerCase();
    return [...counts]
      .filter(([value]) => value && value.toLowerCase().includes(wanted))
      .sort((a, b) => b[1] - a[1] || before(a[0], b[0]))
      .slice(0, most)
      .map(([value]) => value);
  }

  #set(known: Row | undefined, fresh: Row): void {
    if (!known) {
      this.#rows.set(fresh.name, fresh);
      this.#enter(fresh);
      count(this.#states, fresh.state, 1);
      return;
    }
    const { group, sort } = this.#arrangement;
    count(this.#states, known.state, -1);
    count(this.#states, fresh.state, 1);
    if (groupOf(known, group) === groupOf(fresh, group) && valueOf(known, sort) === valueOf(fresh, sort)) {
      // It stays where it is.
      const { states } = this.#groups.get(groupOf(known, group))!;
      count(states, known.state, -1);
      count(states, fresh.state, 1);
      Object.assign(known, fresh);
      return;
    }
    this.#leave(known);
    // Another object, so that what is in order is so by what it was when it was put there.
    this.#rows.set(fresh.name, fresh);
    this.#enter(fresh);
  }

  #delete(row: Row): void {
    this.#rows.delete(row.name);
    count(this.#states, row.state, -1);
    this.#leave(row);
  }

  #enter(row: Row): void {
    const key = groupOf(row, this.#arrangement.group);
    let group = this.#groups.get(key);
    if (!group) {
      group = new Group(key);
      this.#groups.set(key, group);
      this.#ordered = undefined;
    }
    group.add(row);
    count(group.states, row.state, 1);
  }

  #leave(row: Row): void {
    const key = groupOf(row, this.#arrangement.group);
    const group = this.#groups.get(key)!;
    group.remove(row);
    count(group.states, row.state, -1);
    if (group.size > 0) return;
    this.#groups.delete(key);
    this.#ordered = undefined;
  }

  #inOrder(): Group[] {
    const rank = (key: string) => (this.#arrangement.group === "state" ? stateOrder[key as NotebookState] : key);
    return [...this.#groups.values()].sort((a, b) => before(rank(a.key), rank(b.key)));
  }
}
