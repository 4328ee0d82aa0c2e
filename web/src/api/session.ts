// Who is signed in, and what they may do. One for the page.

import { computed, signal } from "@preact/signals";
import { ApiError, errorOf, lost } from "./errors";
import type { Caller, ConsoleConfig, Grant } from "./types";

const key = "notebookd.token";
const issuerKey = "notebookd.issuer";

/** How the server wants to know who calls; undefined until it was asked. */
export const consoleConfig = signal<ConsoleConfig | undefined>(undefined);

/** Who calls, once the server has said so. */
export const caller = signal<Caller | undefined>(undefined);

/** Why nobody is signed in (any more), if somebody has to be. */
export const signedOut = signal<ApiError | undefined>(undefined);

/** Whether somebody was signed in, or had a token, when the server refused: it is news then. */
export const turnedAway = signal(false);

// A token is kept for the tab alone, and not on disk by us.
const stored = signal<string | undefined>(sessionStorage.getItem(key) ?? undefined);

export function token(): string | undefined {
  return stored.peek();
}

export function setToken(value: string | undefined): void {
  stored.value = value;
  if (value) sessionStorage.setItem(key, value);
  else {
    sessionStorage.removeItem(key);
    sessionStorage.removeItem(issuerKey);
  }
}

/** The issuer that the token is from, if it came by OpenID Connect. */
export function issuer(): string | undefined {
  return sessionStorage.getItem(issuerKey) ?? undefined;
}

/** Called with each refusal that says that nobody is signed in, and with the token that was sent. */
export function onUnauthenticated(error: ApiError, ...sent: [token?: string | undefined]): void {
  if (sent.length > 0 && sent[0] !== stored.peek()) return; // somebody has signed in since
  if (stored.peek() || caller.peek()) turnedAway.value = true;
  setToken(undefined); // it will be refused again
  caller.value = undefined;
  signedOut.value = error;
}

/** verify asks the server who calls with a token, or without one. It keeps nothing. */
export async function verify(bearer: string | undefined): Promise<Caller> {
  let response: Response;
  try {
    response = await fetch("/v1/caller", { cache: "no-store", headers: bearer ? { Authorization: `Bearer ${bearer}` } : {} });
  } catch (cause) {
    throw lost(cause);
  }
  if (!response.ok) throw await errorOf(response);
  try {
    return ((await response.json()) as { caller?: Caller }).caller ?? {};
  } catch (cause) {
    throw lost(cause); // the page of somebody between
  }
}

/** signIn verifies a token, or a client certificate when there is none, and keeps it if it is good. */
export async function signIn(bearer: string | undefined, from?: string): Promise<void> {
  const who = await verify(bearer);
  setToken(bearer);
  if (from) sessionStorage.setItem(issuerKey, from);
  turnedAway.value = false;
  caller.value = who;
  signedOut.value = undefined;
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

/** Whether the caller is known, but has no role anywhere. */
export const withoutRole = computed(() => caller.value !== undefined && (caller.value.grants ?? []).length === 0);
