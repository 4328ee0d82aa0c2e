// Elements of rows are used again for other rows: making them is most of what
// scrolling would cost.

import type { Head, Item } from "../live/store";

/** Slot is one line of the page, and what it shows at the moment. */
export interface Slot {
  readonly id: number;
  readonly item: Item;
  /** The line of the whole table. */
  readonly index: number;
}

const identity = (item: Item): string => ("head" in item ? `head ${item.head}` : item.name);

function same(a: Item, b: Item): boolean {
  if ("head" in a || "head" in b) return "head" in a && "head" in b && sameHead(a, b);
  return a.revision === b.revision && a.name === b.name;
}

function sameHead(a: Head, b: Head): boolean {
  return a.head === b.head && a.count === b.count && a.folded === b.folded && JSON.stringify(a.states) === JSON.stringify(b.states);
}

/**
 * assign gives items slots. What was shown stays in its slot, and what was not gets one that
 * is free. What is the same as before is the same object.
 */
export function assign(slots: readonly Slot[], from: number, items: readonly Item[]): Slot[] {
  const shown = new Map(slots.map((slot) => [identity(slot.item), slot]));
  const kept = items.map((item) => {
    const slot = shown.get(identity(item));
    shown.delete(identity(item));
    return slot;
  });
  const free = [...shown.values()].map((slot) => slot.id);
  let next = slots.reduce((most, slot) => Math.max(most, slot.id), -1) + 1;
  return items.map((item, i) => {
    const slot = kept[i];
    const index = from + i;
    return { id: slot?.id ?? free.shift() ?? next++, item: slot && same(slot.item, item) ? slot.item : item, index };
  });
}
