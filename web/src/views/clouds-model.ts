// What the view of clouds makes of what the server tells.

import type { Breaker, LocationState, Location, PastState } from "../api/types";

export interface Segment {
  state: LocationState | undefined;
  /** Why it was not live; several when that changed meanwhile. */
  reasons: string[];
  from: number;
  to: number;
}

export const hour = 3_600_000;

/**
 * segments cuts the last hour into the states of a location. What was before the
 * first state that is known has none.
 */
export function segments(history: readonly PastState[], at: number): Segment[] {
  const begin = at - hour;
  const known = history
    .map((p) => ({ ...p, start: Date.parse(p.startTime ?? "") }))
    .filter((p) => !Number.isNaN(p.start))
    .sort((a, b) => a.start - b.start);
  const out: Segment[] = [];
  const push = (s: Segment) => {
    if (s.to <= s.from) return;
    const last = out.at(-1);
    if (!last || last.state !== s.state) out.push(s);
    else {
      // An outage that is tried again and again is one outage.
      last.to = s.to;
      last.reasons = [...new Set([...last.reasons, ...s.reasons])];
    }
  };
  const first = known[0]?.start ?? at;
  push({ state: undefined, reasons: [], from: begin, to: Math.min(Math.max(first, begin), at) });
  known.forEach((p, i) => {
    const end = known[i + 1]?.start ?? at;
    push({ state: p.state, reasons: p.reason ? [p.reason] : [], from: Math.max(p.start, begin), to: Math.min(end, at) });
  });
  return out;
}

/** shares is how long each state held in the last hour, the longest first. */
export function shares(all: readonly Segment[]): { state: LocationState | undefined; ms: number }[] {
  const sums = new Map<LocationState | undefined, number>();
  for (const s of all) sums.set(s.state, (sums.get(s.state) ?? 0) + s.to - s.from);
  return [...sums].map(([state, ms]) => ({ state, ms })).sort((a, b) => b.ms - a.ms);
}

const severity = { STATE_OPEN: 2, STATE_HALF_OPEN: 1, STATE_CLOSED: 0 } as const;

/** worst puts breakers of one operation together: a location may have several that guard logins. */
export function worst(breakers: readonly Breaker[]): Breaker[] {
  const byOperation = new Map<string, Breaker>();
  for (const b of breakers) {
    const other = byOperation.get(b.operation ?? "");
    const [rank, rankOther] = [severity[b.state ?? "STATE_CLOSED"], other ? severity[other.state ?? "STATE_CLOSED"] : -1];
    if (rank > rankOther || (rank === rankOther && (b.openUntil ?? "") > (other?.openUntil ?? ""))) byOperation.set(b.operation ?? "", b);
  }
  const order = ["OPERATION_READ", "OPERATION_WRITE", "OPERATION_LOGIN"];
  return [...byOperation.values()].sort((a, b) => order.indexOf(a.operation ?? "") - order.indexOf(b.operation ?? ""));
}

export interface Pool {
  id: string;
  code: string;
  free: number;
  max: number | undefined;
}

/** pools are the resource groups of a location by kind of accelerator, the most free first. */
export function pools(location: Location): Map<string, Pool[]> {
  const byKind = new Map<string, Pool[]>();
  for (const g of location.resourceGroups ?? []) {
    const kind = g.accelerator ?? "";
    const list = byKind.get(kind) ?? [];
    list.push({ id: g.id ?? "", code: g.code ?? "", free: g.free ?? 0, max: g.max });
    byKind.set(kind, list);
  }
  for (const list of byKind.values()) list.sort((a, b) => b.free - a.free || a.code.localeCompare(b.code));
  return new Map([...byKind].sort(([a], [b]) => a.localeCompare(b)));
}

/** scaleOf is the end of the scale of one kind: the largest number of it anywhere, rounded up. */
export function scaleOf(locations: readonly Location[], kind: string): number {
  const most = Math.max(1, ...locations.flatMap((l) => (l.resourceGroups ?? []).filter((g) => (g.accelerator ?? "") === kind).map((g) => Math.max(g.free ?? 0, g.max ?? 0))));
  const step = most <= 10 ? 1 : most <= 50 ? 5 : 10 ** Math.floor(Math.log10(most)) / 10 < 10 ? 10 : 10 ** (Math.floor(Math.log10(most)) - 1);
  return Math.ceil(most / step) * step;
}

/** Whether some group is listed under more than one kind. */
export function sharesCards(location: Location): boolean {
  const seen = new Set<string>();
  for (const g of location.resourceGroups ?? []) {
    const key = `${g.id} ${g.code}`;
    if (seen.has(key)) return true;
    seen.add(key);
  }
  return false;
}

/** later returns what is known of a location from the later of two reports. */
export function later(a: Location | undefined, b: Location | undefined): Location | undefined {
  if (!a || !b) return a ?? b;
  return Date.parse(b.lastAttemptTime ?? "") > Date.parse(a.lastAttemptTime ?? "") ? b : a;
}
