// Sign-in at an OpenID Connect issuer: Authorization Code with PKCE, by leaving the
// page and coming back to "/". The ID token is what the server takes.

import type { AuthorizationServer, Client } from "oauth4webapi";

/** What is remembered of a sign-in while the reader is at the issuer. */
export interface Flow {
  issuer: string;
  clientId: string;
  scopes?: string[];
  state: string;
  nonce: string;
  verifier: string;
  /** The fragment to come back to. */
  hash: string;
  /** Whether the issuer was told to ask nothing. */
  silent: boolean;
  /** When it began (Date.now()). */
  began: number;
}

export interface Issuer {
  issuer: string;
  clientId: string;
  scopes?: string[];
}

/** OidcError is what went wrong with a sign-in at an issuer. */
export class OidcError extends Error {
  /** Where: the page itself, the issuer's address, its answer, or the reader's consent. */
  readonly kind: "insecure" | "unreachable" | "refused" | "foreign" | "invalid";
  /** What the issuer or the checks said. */
  readonly detail: string;

  constructor(kind: OidcError["kind"], detail = "") {
    super(detail);
    this.name = "OidcError";
    this.kind = kind;
    this.detail = detail;
  }
}

const key = "notebookd.oidc";

/** One who takes longer than this at the issuer begins anew. */
const patience = 15 * 60_000;

type Store = Pick<Storage, "getItem" | "setItem" | "removeItem">;

/** takeFlow returns what is remembered and forgets it: an answer is good once. */
export function takeFlow(store: Store, at: number): Flow | undefined {
  const text = store.getItem(key);
  store.removeItem(key);
  try {
    const flow = JSON.parse(text ?? "null") as Flow | null;
    if (!flow || typeof flow.state !== "string" || typeof flow.verifier !== "string") return undefined;
    return at - flow.began <= patience ? flow : undefined;
  } catch {
    return undefined;
  }
}

export function keepFlow(store: Store, flow: Flow): void {
  store.setItem(key, JSON.stringify(flow));
}

/** Whether a query of the page's address is an issuer's answer. */
export function isAnswer(search: string): boolean {
  const params = new URLSearchParams(search);
  return params.has("state") && (params.has("code") || params.has("error"));
}

/** An answer of an issuer that the page was opened with. */
export interface Answer {
  params: URLSearchParams;
  flow: Flow | undefined;
}

/**
 * receive takes the answer out of the address of the page, before anything else
 * looks at it, and puts the fragment back that the reader was at.
 */
export function receive(page: { location: Pick<Location, "search" | "pathname" | "hash">; history: Pick<History, "replaceState"> }, store: Store, at: number): Answer | undefined {
  const { search, pathname, hash } = page.location;
  if (!isAnswer(search)) return undefined;
  const flow = takeFlow(store, at);
  // The code is in no history and no bookmark from here on.
  page.history.replaceState(null, "", pathname + (flow?.hash ?? hash));
  return { params: new URLSearchParams(search), flow };
}

/** The URL that issuers send readers back to. */
export const redirectUri = (origin: string) => `${origin}/`;

async function discover(issuer: string): Promise<AuthorizationServer> {
  const oauth = await import("./oauth");
  const url = new URL(issuer);
  try {
    const response = await oauth.discoveryRequest(url, insecure(oauth, issuer));
    return await oauth.processDiscoveryResponse(url, response);
  } catch (cause) {
    throw wrapped(cause);
  }
}

// The server's configuration decides which issuers there are; one by plain HTTP is on
// the same host, for trying it out.
function insecure(oauth: typeof import("./oauth"), issuer: string): { [oauth.allowInsecureRequests]?: boolean } {
  return issuer.startsWith("http:") ? { [oauth.allowInsecureRequests]: true } : {};
}

function wrapped(cause: unknown): OidcError {
  if (cause instanceof OidcError) return cause;
  if (cause instanceof TypeError && !("code" in cause)) return new OidcError("unreachable", cause.message);
  if (cause instanceof Error) {
    const { error, error_description: description } = cause as { error?: unknown; error_description?: unknown };
    if (typeof error === "string") return new OidcError("refused", [error, description].filter((s) => typeof s === "string").join(": "));
    return new OidcError("invalid", cause.message);
  }
  return new OidcError("invalid", String(cause));
}

/** depart returns where to send the reader to sign in, and remembers the way back. */
export async function depart(to: Issuer, options: { origin: string; hash: string; silent: boolean; store: Store; at: number }): Promise<string> {
  if (!globalThis.crypto?.subtle) throw new OidcError("insecure");
  const oauth = await import("./oauth");
  const server = await discover(to.issuer);
  if (!server.authorization_endpoint) throw new OidcError("invalid", "the issuer has no authorization_endpoint");
  const flow: Flow = {
    issuer: to.issuer,
    clientId: to.clientId,
    ...(to.scopes ? { scopes: to.scopes } : {}),
    state: oauth.generateRandomState(),
    nonce: oauth.generateRandomNonce(),
    verifier: oauth.generateRandomCodeVerifier(),
    hash: options.hash,
    silent: options.silent,
    began: options.at,
  };
  const url = new URL(server.authorization_endpoint);
  const params = {
    client_id: to.clientId,
    redirect_uri: redirectUri(options.origin),
    response_type: "code",
    scope: [...new Set(["openid", ...(to.scopes ?? [])])].join(" "),
    state: flow.state,
    nonce: flow.nonce,
    code_challenge: await oauth.calculatePKCECodeChallenge(flow.verifier),
    code_challenge_method: "S256",
    ...(options.silent ? { prompt: "none" } : {}),
  };
  for (const [name, value] of Object.entries(params)) url.searchParams.set(name, value);
  keepFlow(options.store, flow);
  return url.href;
}

/** Errors with which an issuer says that it has to ask the reader after all. */
export const needsReader: ReadonlySet<string> = new Set(["login_required", "interaction_required", "consent_required", "account_selection_required"]);

/** redeem checks an answer and exchanges its code for the ID token. */
export async function redeem(answer: Answer, origin: string): Promise<{ idToken: string; issuer: string }> {
  const { flow, params } = answer;
  // Without what was remembered there is nothing to check it against.
  if (!flow) throw new OidcError("foreign");
  const oauth = await import("./oauth");
  const server = await discover(flow.issuer);
  const client: Client = { client_id: flow.clientId };
  try {
    const checked = oauth.validateAuthResponse(server, client, params, flow.state);
    const response = await oauth.authorizationCodeGrantRequest(server, client, oauth.None(), checked, redirectUri(origin), flow.verifier, insecure(oauth, flow.issuer));
    const tokens = await oauth.processAuthorizationCodeResponse(server, client, response, { expectedNonce: flow.nonce, requireIdToken: true });
    if (!tokens.id_token) throw new OidcError("invalid", "the issuer sent no ID token");
    return { idToken: tokens.id_token, issuer: flow.issuer };
  } catch (cause) {
    throw wrapped(cause);
  }
}
