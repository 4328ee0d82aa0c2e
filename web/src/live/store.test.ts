import { describe, expect, test } from "vitest";
import type { Notebook, NotebookState, WatchResponse } from "../api/types";
import { groupings, Store, type Arrangement, type Head, type Row, type SortKey, type Window } from "./store";

const states: NotebookState[] = ["STATE_RUNNING", "STATE_STOPPED", "STATE_FAILED"];

function notebook(id: number, state: NotebookState = "STATE_RUNNING", more: Partial<Notebook> = {}): Notebook {
  return { name: `clouds/core/locations/xb${id % 3}/notebooks/nb-${String(id).padStart(4, "0")}`, displayName: `n${id}`, state, ...more };
}

const told = (type: "TYPE_ADDED" | "TYPE_MODIFIED" | "TYPE_DELETED" | "TYPE_LEFT_FILTER", n: Notebook, initial = false): WatchResponse => ({ notebook: { type, notebook: n, initial } });
const end: WatchResponse = { bookmark: { kind: "KIND_SNAPSHOT_END" } };
const reset: WatchResponse = { reset: { reason: "TOKEN_EXPIRED" } };
const names = (store: Store) => store.window(0, 1e6).items.map((i) => ("head" in i ? `# ${i.head}` : i.name));

/** The same numbers every time. */
function random(seed: number): () => number {
  let x = seed;
  return () => {
    x = (x * 1103515245 + 12345) & 0x7fffffff;
    return x / 0x7fffffff;
  };
}

describe("Store", () => {
  test("what a reset does not tell again is gone only at the end of the snapshot", () => {
    const store = new Store();
    store.apply([told("TYPE_ADDED", notebook(1), true), told("TYPE_ADDED", notebook(2), true)]);
    expect(store.window(0, 10)).toMatchObject({ total: 2, complete: false });
    store.apply([end]);
    expect(store.window(0, 10).complete).toBe(true);
    store.apply([reset, told("TYPE_ADDED", notebook(2), true)]);
    expect(store.window(0, 10)).toMatchObject({ total: 2, complete: false });
    store.apply([end]);
    expect(names(store)).toEqual([notebook(2).name]);
  });

  test("a snapshot that was cut off and begins anew keeps nothing that is gone", () => {
    const store = new Store();
    store.apply([told("TYPE_ADDED", notebook(1), true), end]);
    store.again();
    store.apply([told("TYPE_ADDED", notebook(3), true), end]);
    expect(names(store)).toEqual([notebook(3).name]);
  });

  test("what is deleted while the first snapshot is cut off is gone", () => {
    const store = new Store();
    store.again();
    store.apply([told("TYPE_ADDED", notebook(1), true), told("TYPE_ADDED", notebook(2), true)]);
    store.again();
    store.apply([told("TYPE_ADDED", notebook(2), true), end]);
    expect(names(store)).toEqual([notebook(2).name]);
  });

  test("rows are sorted by what is asked for, and by name between equals", () => {
    const store = new Store();
    store.apply([told("TYPE_ADDED", notebook(2, "STATE_STOPPED")), told("TYPE_ADDED", notebook(1, "STATE_STOPPED")), told("TYPE_ADDED", notebook(3, "STATE_CREATING")), end]);
    store.arrange({ group: "", sort: "state", descending: false, folded: [] });
    expect(store.window(0, 9).items.map((i) => (i as Row).display)).toEqual(["n3", "n1", "n2"]);
    store.arrange({ group: "", sort: "state", descending: true, folded: [] });
    expect(store.window(0, 9).items.map((i) => (i as Row).display)).toEqual(["n1", "n2", "n3"]);
  });

  test("groups have heads with sums, and fold", () => {
    const store = new Store();
    store.apply([1, 2, 3, 4].map((i) => told("TYPE_ADDED", notebook(i, i % 2 ? "STATE_FAILED" : "STATE_RUNNING"))));
    store.arrange({ group: "state", sort: "name", descending: false, folded: ["STATE_RUNNING"] });
    const { items, lines, total } = store.window(0, 9);
    expect(items.map((i) => ("head" in i ? `# ${i.head} ${i.count}` : i.display))).toEqual(["# STATE_RUNNING 2", "# STATE_FAILED 2", "n3", "n1"]);
    expect((items[0] as Head).folded).toBe(true);
    expect([lines, total]).toEqual([4, 4]);
  });

  test("a window is a part of the lines", () => {
    const store = new Store();
    store.apply(Array.from({ length: 50 }, (_, i) => told("TYPE_ADDED", notebook(3 * i))));
    const window = store.window(10, 13);
    expect([window.from, window.lines, window.items.map((i) => (i as Row).display)]).toEqual([10, 50, ["n30", "n33", "n36"]]);
    expect(store.window(80, 83)).toMatchObject({ from: 47, items: [{ display: "n141" }, { display: "n144" }, { display: "n147" }] });
  });

  test.each(groupings.flatMap((group) => (["name", "location", "state", "cpu"] as SortKey[]).map((sort) => [group, sort] as const)))(
    "grouped by %j and sorted by %s, what has changed is where a store that never saw it change has it",
    (group, sort) => {
      const next = random(7);
      const arrangement = (i: number): Arrangement => ({ group, sort, descending: i % 2 === 1, folded: i % 3 === 2 ? ["STATE_STOPPED", "core"] : [] });
      const store = new Store(() => 0);
      const model = new Map<string, Notebook>();
      for (let i = 0; i < 40; i++) {
        store.arrange(arrangement(i >> 3));
        // Now a few changes among many rows, and now many.
        for (let changes = i % 4 === 0 ? 60 : 3; changes > 0; changes--) {
          const n = notebook(Math.floor(next() * 200), states[Math.floor(next() * 3)]!, { ownerId: `u${Math.floor(next() * 3)}`, resources: { cpuCores: Math.floor(next() * 4) } });
          if (next() < 0.2) {
            store.apply([told("TYPE_DELETED", n)]);
            model.delete(n.name);
          } else {
            store.apply([told("TYPE_MODIFIED", n)]);
            model.set(n.name, n);
          }
        }
        const fresh = new Store(() => 0);
        fresh.arrange(arrangement(i >> 3));
        fresh.apply([...model.values()].map((n) => told("TYPE_ADDED", n)));
        const plain = ({ items, ...sums }: Window) => ({ ...sums, items: items.map((item) => ({ ...item, revision: 0 })) });
        expect(plain(store.window(0, 1000))).toEqual(plain(fresh.window(0, 1000)));
        expect(names(store).filter((n) => !n.startsWith("#"))).toEqual(names(store).filter((n) => model.has(n)));
      }
    },
  );

  test.each([1, 2, 3, 4, 5])("whatever is told, the lines are those of a plain model (seed %i)", (seed) => {
    const next = random(seed);
    const store = new Store();
    const model = new Map<string, Notebook>();
    store.apply([end]);
    for (let i = 0; i < 600; i++) {
      const n = notebook(Math.floor(next() * 40), states[Math.floor(next() * 3)]!);
      const dice = next();
      if (dice < 0.6) {
        store.apply([told(model.has(n.name) ? "TYPE_MODIFIED" : "TYPE_ADDED", n)]);
        model.set(n.name, n);
      } else if (dice < 0.95) {
        store.apply([told(dice < 0.8 ? "TYPE_DELETED" : "TYPE_LEFT_FILTER", n)]);
        model.delete(n.name);
      } else {
        const kept = [...model.values()].filter(() => next() < 0.8);
        model.clear();
        for (const k of kept) model.set(k.name, k);
        store.apply([reset, ...kept.map((k) => told("TYPE_ADDED", k, true)), end]);
      }
      if (i % 10 === 0) {
        expect(names(store)).toEqual([...model.keys()].sort());
        const sums: Record<string, number> = {};
        for (const m of model.values()) sums[m.state!] = (sums[m.state!] ?? 0) + 1;
        expect(store.window(0, 0).states).toEqual(sums);
      }
    }
  });
});
