// The request for an image change, so that it happens once: it has an id that is
// kept over retries and over a reload of the page, until the change has ended.

import type { ImageChange } from "../api/types";

export interface PendingRequest {
  requestId: string;
  image: string;
  imageType?: string;
  /** The user name of a login. The password is kept nowhere. */
  username?: string;
  reason?: string;
  etag?: string;
  acknowledge: string[];
  /** What was planned, for the page to show after a reload. */
  plan: ImageChange;
  /** The name of the change, once the server has told it. */
  change?: string;
}

type Store = Pick<Storage, "getItem" | "setItem" | "removeItem">;

const keyOf = (notebook: string) => `notebookd.change:${notebook}`;

/** Requests are those of this tab, one for each notebook. */
export class Requests {
  #store: Store;

  constructor(store: Store) {
    this.#store = store;
  }

  get(notebook: string): PendingRequest | undefined {
    try {
      const value = JSON.parse(this.#store.getItem(keyOf(notebook)) ?? "null") as PendingRequest | null;
      return value && typeof value.requestId === "string" && typeof value.image === "string" && Array.isArray(value.acknowledge) ? value : undefined;
    } catch {
      return undefined;
    }
  }

  /** keep stores a request before it is sent, and again when its change has a name. */
  keep(notebook: string, request: PendingRequest): void {
    // Named one by one, so that a password can never slip in.
    const { requestId, image, imageType, username, reason, etag, acknowledge, plan, change } = request;
    this.#store.setItem(keyOf(notebook), JSON.stringify({ requestId, image, imageType, username, reason, etag, acknowledge, plan, change }));
  }

  forget(notebook: string): void {
    this.#store.removeItem(keyOf(notebook));
  }
}

type Random = Pick<Crypto, "getRandomValues"> & { randomUUID?: () => string };

/** newRequestId makes a UUID. A page over plain HTTP has no crypto.randomUUID. */
export function newRequestId(random: Random = crypto): string {
  if (random.randomUUID) return random.randomUUID();
  const bytes = random.getRandomValues(new Uint8Array(16));
  bytes[6] = ((bytes[6] ?? 0) & 0x0f) | 0x40; // version 4
  bytes[8] = ((bytes[8] ?? 0) & 0x3f) | 0x80; // variant 1
  const hex = Array.from(bytes, (b) => b.toString(16).padStart(2, "0")).join("");
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join("-");
}

/** Whether everything that a plan warns of was ticked. */
export function allTicked(plan: ImageChange, ticked: ReadonlySet<string>): boolean {
  return (plan.warnings ?? []).every((w) => ticked.has(w.code));
}

/** The codes to acknowledge: those that the plan has and that were ticked. */
export function acknowledged(plan: ImageChange, ticked: ReadonlySet<string>): string[] {
  return (plan.warnings ?? []).map((w) => w.code).filter((code) => ticked.has(code));
}
