import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { depart, isAnswer, keepFlow, OidcError, receive, redeem, takeFlow, type Flow } from "./oidc";

function memory() {
  const all = new Map<string, string>();
  return {
    all,
    getItem: (key: string) => all.get(key) ?? null,
    setItem: (key: string, value: string) => void all.set(key, value),
    removeItem: (key: string) => void all.delete(key),
  };
}

const issuer = "https://id.example/realms/ai";
const origin = "https://console.example";
const base64url = (data: string | Uint8Array) =>
  btoa(typeof data === "string" ? data : String.fromCharCode(...data))
    .replace(/\+/g, "-")
    .replace(/\//g, "_")
    .replace(/=+$/, "");

/** An issuer that checks PKCE, and issues one code. */
class FakeIssuer {
  claims: Record<string, unknown> = {};
  requests: string[] = [];
  asked: URLSearchParams | undefined;
  issuer = issuer;

  fetch = async (input: RequestInfo | URL, init?: RequestInit): Promise<Response> => {
    const url = String(input instanceof Request ? input.url : input);
    this.requests.push(url);
    const json = (value: unknown, status = 200) => new Response(JSON.stringify(value), { status, headers: { "Content-Type": "application/json" } });
    if (url === `${issuer}/.well-known/openid-configuration`) {
      return json({ issuer: this.issuer, authorization_endpoint: `${issuer}/auth?kept=1`, token_endpoint: `${issuer}/token` });
    }
    if (url === `${issuer}/token`) {
      const body = new URLSearchParams(String(init?.body));
      const verifier = body.get("code_verifier") ?? "";
      const challenge = base64url(new Uint8Array(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(verifier))));
      const good = challenge === this.asked?.get("code_challenge") && body.get("code") === "the-code" && body.get("redirect_uri") === this.asked.get("redirect_uri") && body.get("client_id") === "console";
      if (!good) return json({ error: "invalid_grant", error_description: "no such code" }, 400);
      const at = Math.floor(Date.now() / 1000);
      const claims = { iss: issuer, aud: "console", sub: "ada", iat: at, exp: at + 300, nonce: this.asked?.get("nonce"), ...this.claims };
      const token = [base64url(JSON.stringify({ alg: "RS256" })), base64url(JSON.stringify(claims)), base64url("signature")].join(".");
      return json({ access_token: "a", token_type: "Bearer", id_token: token });
    }
    return json({}, 404);
  };
}

let server: FakeIssuer;
beforeEach(() => {
  server = new FakeIssuer();
  vi.stubGlobal("fetch", server.fetch);
});
afterEach(() => vi.unstubAllGlobals());

async function leave(store: ReturnType<typeof memory>, silent = false): Promise<URL> {
  const url = new URL(await depart({ issuer, clientId: "console", scopes: ["openid", "groups"] }, { origin, hash: "#/clouds?x=1", silent, store, at: 1000 }));
  server.asked = url.searchParams;
  return url;
}

function comeBack(store: ReturnType<typeof memory>, search: string, at = 2000) {
  const replaceState = vi.fn();
  const answer = receive({ location: { search, pathname: "/", hash: "" }, history: { replaceState } }, store, at);
  return { answer, replaceState };
}

const kindOf = async (attempt: Promise<unknown>) =>
  await attempt.then(
    () => "none",
    (cause: unknown) => (cause instanceof OidcError ? cause.kind : `other: ${String(cause)}`),
  );

describe("sign-in at an issuer", () => {
  it("goes there with PKCE, and comes back with an ID token to the same place", async () => {
    const store = memory();
    const url = await leave(store);
    expect(url.origin + url.pathname).toBe(`${issuer}/auth`);
    expect(Object.fromEntries(url.searchParams)).toMatchObject({
      kept: "1",
      client_id: "console",
      redirect_uri: `${origin}/`,
      response_type: "code",
      scope: "openid groups",
      code_challenge_method: "S256",
    });
    expect(url.searchParams.has("prompt")).toBe(false);
    expect(url.href).not.toContain(JSON.parse([...store.all.values()][0] ?? "{}").verifier);
    const { answer, replaceState } = comeBack(store, `?code=the-code&state=${url.searchParams.get("state")}`);
    expect(replaceState).toHaveBeenCalledWith(null, "", "/#/clouds?x=1");
    expect(store.all.size).toBe(0);
    if (!answer) throw new Error("no answer");
    const { idToken, issuer: from } = await redeem(answer, origin);
    expect(from).toBe(issuer);
    expect(JSON.parse(atob(idToken.split(".")[1] ?? ""))).toMatchObject({ sub: "ada" });
  });

  it("asks for no prompt when it renews", async () => {
    expect((await leave(memory(), true)).searchParams.get("prompt")).toBe("none");
  });

  it("refuses another state, and asks for no token then", async () => {
    const store = memory();
    await leave(store);
    const { answer } = comeBack(store, "?code=the-code&state=forged");
    expect(await kindOf(redeem(answer!, origin))).toBe("invalid");
    expect(server.requests.some((r) => r.endsWith("/token"))).toBe(false);
  });

  it("refuses an answer that nobody waits for, twice the same one, and one that comes late", async () => {
    const store = memory();
    const url = await leave(store);
    const search = `?code=the-code&state=${url.searchParams.get("state")}`;
    expect(await kindOf(redeem(comeBack(memory(), search).answer!, origin))).toBe("foreign");
    expect(await kindOf(redeem(comeBack(store, search, 1000 + 16 * 60_000).answer!, origin))).toBe("foreign");
    expect(await kindOf(redeem(comeBack(store, search).answer!, origin))).toBe("foreign");
    expect(server.requests.some((r) => r.endsWith("/token"))).toBe(false);
  });

  it.each([
    ["nonce", { nonce: "another" }],
    ["issuer", { iss: "https://evil.example" }],
    ["audience", { aud: "somebody-else" }],
    ["expiry", { exp: 1 }],
  ])("refuses an ID token with another %s", async (_, claims) => {
    const store = memory();
    server.claims = claims;
    const url = await leave(store);
    const { answer } = comeBack(store, `?code=the-code&state=${url.searchParams.get("state")}`);
    expect(await kindOf(redeem(answer!, origin))).toBe("invalid");
  });

  it("refuses a discovery document of another issuer", async () => {
    server.issuer = "https://evil.example";
    expect(await kindOf(leave(memory()))).toBe("invalid");
  });

  it("tells what the issuer said when it refuses", async () => {
    const store = memory();
    const url = await leave(store);
    const state = url.searchParams.get("state");
    const { answer } = comeBack(store, `?error=access_denied&error_description=not+you&state=${state}`);
    await expect(redeem(answer!, origin)).rejects.toMatchObject({ kind: "refused", detail: "access_denied: not you" });
    const again = await leave(store);
    const wrong = comeBack(store, `?code=another-code&state=${again.searchParams.get("state")}`);
    await expect(redeem(wrong.answer!, origin)).rejects.toMatchObject({ kind: "refused", detail: "invalid_grant: no such code" });
  });

  it("tells that the issuer cannot be reached", async () => {
    vi.stubGlobal("fetch", () => Promise.reject(new TypeError("Failed to fetch")));
    expect(await kindOf(leave(memory()))).toBe("unreachable");
  });

  it("says that it needs HTTPS where the browser has no crypto.subtle", async () => {
    vi.stubGlobal("crypto", { getRandomValues: crypto.getRandomValues.bind(crypto) });
    expect(await kindOf(leave(memory()))).toBe("insecure");
  });
});

it("knows an answer from any other query", () => {
  expect(isAnswer("?code=1&state=2")).toBe(true);
  expect(isAnswer("?error=x&state=2")).toBe(true);
  expect(isAnswer("?code=1")).toBe(false);
  expect(isAnswer("")).toBe(false);
  expect(comeBack(memory(), "?q=1").answer).toBeUndefined();
});

it("forgets a flow once it was taken", () => {
  const store = memory();
  const flow: Flow = { issuer, clientId: "c", state: "s", nonce: "n", verifier: "v", hash: "", silent: false, began: 0 };
  keepFlow(store, flow);
  expect(takeFlow(store, 1)).toEqual(flow);
  expect(takeFlow(store, 1)).toBeUndefined();
  store.setItem("notebookd.oidc", "{");
  expect(takeFlow(store, 1)).toBeUndefined();
});
