import { describe, expect, test } from "vitest";
import type { Head, Row } from "../live/store";
import { assign } from "./slots";

const row = (id: number, revision = 1): Row => ({
  name: `clouds/core/locations/xb3/notebooks/nb-${id}`,
  display: `n${id}`,
  state: "STATE_RUNNING",
  cloud: "core",
  location: "xb3",
  image: "",
  accelerator: "",
  cards: 0,
  cpu: 0,
  memory: 0,
  owner: "",
  created: 0,
  expires: 0,
  changed: 0,
  revision,
});
const rows = (...ids: number[]) => ids.map((id) => row(id));
const head = (count: number): Head => ({ head: "a", count, states: { STATE_RUNNING: count }, folded: false });
const ids = (slots: { id: number }[]) => slots.map((s) => s.id);

describe("assign", () => {
  test("what goes on to be shown keeps its slot, and what comes gets those that are free", () => {
    const before = assign([], 0, rows(1, 2, 3, 4));
    expect(ids(before)).toEqual([0, 1, 2, 3]);
    const after = assign(before, 2, rows(3, 4, 5, 6));
    expect(ids(after)).toEqual([2, 3, 0, 1]);
    expect(after.slice(0, 2)).toEqual(before.slice(2));
    expect(after[0]!.item).toBe(before[2]!.item);
  });

  test("of a jump all slots stay in their places", () => {
    const before = assign([], 0, rows(1, 2, 3));
    expect(ids(assign(before, 100, rows(101, 102, 103)))).toEqual([0, 1, 2]);
  });

  test("an item is another object when it has changed", () => {
    const before = assign([], 0, [head(2), ...rows(1, 2)]);
    const after = assign(before, 0, [head(2), row(1, 2), row(2)]);
    expect(after).toEqual([
      { id: 0, item: head(2), index: 0 },
      { id: 1, item: row(1, 2), index: 1 },
      { id: 2, item: row(2), index: 2 },
    ]);
    expect(after[0]!.item).toBe(before[0]!.item);
    expect(after[2]!.item).toBe(before[2]!.item);
    const moved = assign(after, 0, [head(1), row(2)]);
    expect(moved).toEqual([
      { id: 0, item: head(1), index: 0 },
      { id: 2, item: row(2), index: 1 },
    ]);
  });

  test("no two lines have one slot, however many lines there are", () => {
    let slots = assign([], 0, rows(1, 2));
    for (const [from, shown] of [[0, [2, 1, 3]], [5, [9]], [0, [1, 9, 2, 3, 4]], [1, [4, 5, 9]]] as [number, number[]][]) {
      slots = assign(slots, from, rows(...shown));
      expect(slots.map((s) => (s.item as Row).display)).toEqual(shown.map((n) => `n${n}`));
      expect(new Set(ids(slots)).size).toBe(shown.length);
    }
  });
});
