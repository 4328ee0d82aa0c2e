// Who is signed in, and what they may do. One for the page.

import { computed, signal } from "@preact/signals";
import { ApiError } from "./errors";
import type { Caller, ConsoleConfig, Grant } from "./types";

const key = "notebookd.token";

/** How the server wants to know who calls; undefined until it was asked. */
export const consoleConfig = signal<ConsoleConfig | undefined>(undefined);

/** Who calls, once the server has said so. */
export const caller = signal<Caller | undefined>(undefined);

/** Why nobody is signed in (any more), if somebody has to be. */
export const signedOut = signal<ApiError | undefined>(undefined);

// A token is kept for the tab alone, and not on disk by us.
const stored = signal<string | undefined>(sessionStorage.getItem(key) ?? undefined);

export function token(): string | undefined {
  return stored.peek();
}

export function setToken(value: string | undefined): void {
  stored.value = value;
  if (value) sessionStorage.setItem(key, value);
  else sessionStorage.removeItem(key);
}

/** Called with each refusal that says that nobody is signed in. */
export function onUnauthenticated(error: ApiError): void {
  caller.value = undefined;
  signedOut.value = error;
}

const rank = { ROLE_VIEWER: 1, ROLE_OPERATOR: 2, ROLE_ADMIN: 3 } as const;

/** Whether grants allow a role for a resource name below `clouds/{cloud}`. */
export function allows(grants: Grant[], role: keyof typeof rank, name: string): boolean {
  const [, cloud, , location] = name.split("/");
  return grants.some(
    (g) =>
      rank[g.role] >= rank[role] &&
      (g.parent === "clouds/-" || g.parent === `clouds/${cloud}` || g.parent === `clouds/${cloud}/locations/${location}`),
  );
}

/** Whether the caller may change images in the location of a notebook. */
export function mayOperate(notebook: string): boolean {
  return allows(caller.value?.grants ?? [], "ROLE_OPERATOR", notebook);
}

/** Whether there is any location where the caller may change images. */
export const operatesSomewhere = computed(() => (caller.value?.grants ?? []).some((g) => g.role !== "ROLE_VIEWER"));
