import { signal } from "@preact/signals";
import { useEffect, useRef, useState } from "preact/hooks";
import { answer } from "../api/answer";
import { ApiError } from "../api/errors";
import { depart, needsReader, OidcError, redeem, type Answer, type Issuer } from "../api/oidc";
import { caller, consoleConfig, issuer, setToken, signedOut, signIn, turnedAway } from "../api/session";
import { t as common } from "../i18n/common";
import { reasonWord } from "../i18n/words";
import { t } from "../i18n/signin";
import { countdown, now } from "../ui/time";
import { Copy } from "../ui/copy";
import { list } from "../ui/format";
import { Problem } from "../ui/problem";
import { Said } from "../ui/said";
import "./signin.css";

// How the return from an issuer goes: it may end a sign-in, or renew one that goes on.
const returning = signal(answer.value !== undefined);
const problem = signal<Error | undefined>(undefined);

function fail(cause: unknown): void {
  returning.value = false;
  problem.value = cause instanceof Error ? cause : new Error(String(cause));
}

async function finish(received: Answer): Promise<void> {
  // The fragment was put back without the router being told.
  dispatchEvent(new HashChangeEvent("hashchange"));
  try {
    const { idToken, issuer: from } = await redeem(received, location.origin);
    await signIn(idToken, from);
    returning.value = false;
  } catch (cause) {
    // An issuer that was to ask nothing has to ask: then it may.
    if (received.flow?.silent && needsReader.has(received.params.get("error") ?? "")) await leave(received.flow, false).catch(fail);
    else fail(cause);
  }
}

/** SignIn is what whoever is not signed in sees, in place of the view they asked for. */
export function SignIn() {
  const auth = consoleConfig.value?.auth;
  const error = signedOut.value;
  const title = useRef<HTMLHeadingElement>(null);
  useEffect(() => title.current?.focus(), []);

  if (returning.value) {
    return (
      <div class="signin">
        <h1>{t("title")}</h1>
        <p role="status">{t("oidcReturning")}</p>
      </div>
    );
  }
  const ways = auth ? [auth.token, auth.certificate, auth.oidc?.length].filter(Boolean).length : 0;
  return (
    <div class="signin">
      <div>
        <h1 tabIndex={-1} ref={title}>
          {turnedAway.value ? t("again") : t("title")}
        </h1>
        <p class="muted">
          {t("intro")}
          {common("gap")}
          {t("placeKept")}
        </p>
      </div>
      {turnedAway.value && error ? (
        <div class="problem" role="alert">
          <p>
            <strong>{t("ended")}</strong>
            {common("gap")}
            {error.reason === "UNAUTHENTICATED" ? t("expired") : reasonWord(error.reason)}
          </p>
          {error.message ? (
            <p class="detail">
              <code>{error.reason}</code> <Said text={error.message} />
            </p>
          ) : null}
        </div>
      ) : null}
      {problem.value ? <OidcProblem error={problem.value} /> : null}
      {auth?.oidc?.length ? <WithOidc issuers={auth.oidc} /> : null}
      {auth?.token ? <WithToken /> : null}
      {auth?.certificate ? <WithCertificate /> : null}
      {auth && ways === 0 ? <p>{t("noWay")}</p> : null}
      {!auth && error ? <Problem error={error} retry={() => location.reload()} /> : null}
    </div>
  );
}

const hostOf = (url: string) => {
  try {
    return new URL(url).host;
  } catch {
    return url;
  }
};

async function leave(to: Issuer, silent: boolean): Promise<void> {
  location.assign(await depart(to, { origin: location.origin, hash: location.hash, silent, store: sessionStorage, at: Date.now() }));
}

function OidcProblem({ error }: { error: Error }) {
  if (error instanceof ApiError) {
    return error.reason === "UNAUTHENTICATED" ? (
      <div class="problem" role="alert">
        <p>
          <strong>{t("oidcTokenRefused")}</strong>
        </p>
        <p class="detail">
          <code>{error.reason}</code> <Said text={error.message} />
        </p>
      </div>
    ) : (
      <Problem error={error} />
    );
  }
  const kind = error instanceof OidcError ? error.kind : "invalid";
  const detail = error instanceof OidcError ? error.detail : error.message;
  return (
    <div class="problem" role="alert">
      <p>
        <strong>{t(`oidc_${kind}`)}</strong>
      </p>
      {detail ? <p class="detail">{t("oidcDetail", { detail })}</p> : null}
    </div>
  );
}

function WithOidc({ issuers }: { issuers: Issuer[] }) {
  const [leaving, setLeaving] = useState<string>();
  const go = async (to: Issuer) => {
    problem.value = undefined;
    setLeaving(to.issuer);
    try {
      await leave(to, false);
    } catch (cause) {
      setLeaving(undefined);
      fail(cause);
    }
  };
  return (
    <section class="card">
      <h2>{t("oidc")}</h2>
      <p class="muted">{t("oidcHint")}</p>
      <div class="actions">
        {issuers.map((to) => (
          <button key={`${to.issuer} ${to.clientId}`} type="button" class="primary" disabled={leaving !== undefined} onClick={() => void go(to)}>
            {leaving === to.issuer ? t("oidcLeaving", { host: hostOf(to.issuer) }) : t("oidcWith", { host: hostOf(to.issuer) })}
          </button>
        ))}
      </div>
    </section>
  );
}

function WithToken() {
  const [busy, setBusy] = useState(false);
  // By its message's name: the language may change while it is told.
  const [fault, setFault] = useState<"tokenEmpty" | "tokenBad" | "tokenRefused">();
  const [error, setError] = useState<ApiError>();
  const input = useRef<HTMLInputElement>(null);

  async function submit(event: Event) {
    event.preventDefault();
    const value = input.current?.value.trim() ?? "";
    setError(undefined);
    // A header holds no others.
    const problem = value === "" ? "tokenEmpty" : /^[\x21-\x7e]+$/.test(value) ? undefined : "tokenBad";
    setFault(problem);
    if (problem) {
      input.current?.focus();
      return;
    }
    setBusy(true);
    try {
      await signIn(value);
    } catch (cause) {
      setBusy(false);
      if (cause instanceof ApiError && cause.reason === "UNAUTHENTICATED") setFault("tokenRefused");
      else if (cause instanceof ApiError) setError(cause);
      input.current?.focus();
    }
  }

  return (
    <section class="card">
      <h2>{t("token")}</h2>
      <form onSubmit={submit} noValidate>
        <div class="field">
          <label for="token">{t("tokenLabel")}</label>
          <input
            id="token"
            ref={input}
            type="password"
            autocomplete="off"
            spellcheck={false}
            aria-describedby={fault ? "token-hint token-fault" : "token-hint"}
            aria-invalid={fault ? "true" : undefined}
          />
          {fault ? (
            <span id="token-fault" class="fault" role="alert">
              {t(fault)}
            </span>
          ) : null}
          <span id="token-hint" class="muted">
            {t("tokenHint")}
          </span>
        </div>
        {error ? <Problem error={error} /> : null}
        <div class="actions">
          <button type="submit" class="primary" disabled={busy}>
            {busy ? t("checking") : t("signIn")}
          </button>
        </div>
      </form>
    </section>
  );
}

function WithCertificate() {
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<ApiError>();
  async function again() {
    setBusy(true);
    setError(undefined);
    try {
      await signIn(undefined);
    } catch (cause) {
      setBusy(false);
      if (cause instanceof ApiError) setError(cause);
    }
  }
  return (
    <section class="card">
      <h2>{t("certificate")}</h2>
      <p class="muted">{t("certificateHint")}</p>
      {error ? (
        error.reason === "UNAUTHENTICATED" ? (
          <p class="fault" role="alert">
            {t("certificateRefused")}
          </p>
        ) : (
          <Problem error={error} />
        )
      ) : null}
      <div class="actions">
        <button type="button" onClick={() => void again()} disabled={busy}>
          {busy ? t("checking") : t("certificateAgain")}
        </button>
      </div>
    </section>
  );
}

/** NoRole is for whoever is signed in, but may see nothing. */
export function NoRole() {
  const who = caller.value;
  return (
    <div class="signin">
      <h1>{t("noRoleTitle")}</h1>
      <p>{t("noRole")}</p>
      <dl class="card who-am-i">
        <dt>{t("subject")}</dt>
        <dd>
          <code>{who?.subject}</code> {who?.subject ? <Copy text={who.subject} label={common("copy")} /> : null}
        </dd>
        {who?.groups?.length ? (
          <>
            <dt>{t("groups")}</dt>
            <dd>{list(who.groups)}</dd>
          </>
        ) : null}
      </dl>
      <div class="actions">
        <button type="button" class="primary" onClick={() => location.reload()}>
          {t("checkAgain")}
        </button>
        {who?.method === "METHOD_CERTIFICATE" || who?.method === "METHOD_NONE" ? null : (
          <button
            type="button"
            onClick={() => {
              setToken(undefined);
              location.reload();
            }}
          >
            {t("other")}
          </button>
        )}
      </div>
    </div>
  );
}

/** How long before its end a sign-in is spoken of. */
const soon = 5 * 60_000;

/** Expiry tells that the sign-in ends soon, and renews it. It never leaves the page by itself: somebody may be typing. */
export function Expiry() {
  const [busy, setBusy] = useState(false);
  useEffect(() => {
    const received = answer.value;
    answer.value = undefined;
    if (received) void finish(received);
  }, []);
  const who = caller.value;
  if (!who || signedOut.value) return null;
  const ends = who.expireTime !== undefined && Date.parse(who.expireTime) - now.value <= soon;
  // An old address of a return, opened again by somebody who is signed in, is no news.
  const wrong = problem.value instanceof OidcError && problem.value.kind === "foreign" ? undefined : problem.value;
  if (!ends && !wrong) return null;
  const from = consoleConfig.value?.auth.oidc?.find((o) => o.issuer === issuer());
  async function renew() {
    setBusy(true);
    problem.value = undefined;
    try {
      if (from) await leave(from, true);
      else {
        setToken(undefined);
        location.reload();
      }
    } catch (cause) {
      setBusy(false);
      fail(cause);
    }
  }
  return (
    <aside class="banner expiry" aria-label={t("yours")}>
      {ends ? (
        <>
          <span role="timer" aria-live="off">
            {t("expires", { left: countdown(who.expireTime) })}
          </span>
          {who.method === "METHOD_CERTIFICATE" ? null : (
            <button type="button" disabled={busy} onClick={() => void renew()}>
              {busy ? t("renewing") : from ? t("renew") : t("signInAnew")}
            </button>
          )}
        </>
      ) : null}
      {wrong ? (
        <>
          <OidcProblem error={wrong} />
          <button type="button" onClick={() => (problem.value = undefined)}>
            {common("close")}
          </button>
        </>
      ) : null}
    </aside>
  );
}
