import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { changeImage, getImageChange, getNotebook, listClouds, listImageChanges, type ChangeImage } from "../api/client";
import { ApiError } from "../api/errors";
import { quote } from "../api/quote";
import { caller, mayOperate } from "../api/session";
import type { ChangePhase, Cloud, ImageChange, Notebook } from "../api/types";
import { imagesFor, type SeenImage } from "../changes/images";
import { hasEnded, newer, notebookOf, recreates, stepper, tookOf, type Step } from "../changes/phases";
import { acknowledged, allTicked, newRequestId, Requests, type PendingRequest } from "../changes/request";
import { t } from "../i18n/change";
import { t as common } from "../i18n/common";
import { said } from "../i18n/sentences";
import { phaseWord, reasonWord } from "../i18n/words";
import { clouds, connection, imageChanges } from "../live/live";
import { href, place } from "../router";
import { PhaseBadge, StateBadge } from "../ui/badge";
import { Copy } from "../ui/copy";
import { duration } from "../ui/duration";
import { list } from "../ui/format";
import { Problem } from "../ui/problem";
import { Said } from "../ui/said";
import { ago, now } from "../ui/time";
import "./change.css";

const requests = new Requests(sessionStorage);

interface Fields {
  image: string;
  /** undefined as long as the reader has not chosen one. */
  type: string | undefined;
  username: string;
  password: string;
  reason: string;
}

type Stage =
  | { kind: "form"; error?: ApiError }
  | { kind: "planning" }
  | { kind: "planned"; request: PendingRequest; error?: ApiError }
  | { kind: "sending"; request: PendingRequest }
  /** It is not known whether the request arrived; asked is whether the server does not know it. */
  | { kind: "unsure"; request: PendingRequest; missing: boolean }
  | { kind: "following"; change: ImageChange & { name: string }; ours: boolean };

// After these the same request may be sent again: nothing came of it.
const passing: ReadonlySet<string> = new Set(["RATE_LIMITED", "STORE_UNAVAILABLE", "DRAINING", "ISSUER_UNAVAILABLE", "UNAUTHENTICATED"]);
// After these nobody knows whether it arrived.
const silent: ReadonlySet<string> = new Set(["SERVER_LOST", "UNKNOWN", "CALLER_GONE", "INTERNAL"]);

function begin(name: string): Stage {
  const request = requests.get(name);
  if (!request) return { kind: "form" };
  if (!request.change) return { kind: "unsure", request, missing: false };
  return { kind: "following", change: { ...request.plan, phase: "PHASE_PENDING", name: request.change }, ours: true };
}

/** ChangeView plans a change of a notebook's image, makes it once, and follows it to its end. */
export function ChangeView({ name }: { name: string }) {
  const [, cloudId = "", , locationId = "", , id = ""] = name.split("/");
  const [notebook, setNotebook] = useState<Notebook | null>();
  const [loadError, setLoadError] = useState<ApiError>();
  const [stage, setStage] = useState<Stage>(() => begin(name));
  const [seen, setSeen] = useState<SeenImage[]>([]);
  const params = place.value.params;
  const [fields, setFields] = useState<Fields>(() => ({
    image: params.get("image") ?? "",
    type: params.get("type") ?? undefined,
    username: "",
    password: "",
    reason: "",
  }));
  const cloud = useCloud(`clouds/${cloudId}`);
  const may = mayOperate(name);

  async function load() {
    try {
      setNotebook((await getNotebook(name)) ?? null);
      setLoadError(undefined);
    } catch (cause) {
      if (cause instanceof ApiError) setLoadError(cause);
    }
  }
  useEffect(() => void load(), []);
  const accelerator = notebook?.resources?.accelerator?.type;
  const read = Boolean(notebook);
  useEffect(() => {
    if (!may || !notebook) return;
    const abort = new AbortController();
    // Without suggestions the form works as well.
    imagesFor(notebook, abort.signal).then(setSeen, () => {});
    return () => abort.abort();
  }, [may, read, accelerator]);

  const current = useRef(stage);
  current.current = stage;
  // One who comes back later begins anew; one who only reloads still sees how it ended.
  useEffect(
    () => () => {
      const s = current.current;
      if (s.kind === "following" && s.ours && hasEnded(s.change)) requests.forget(name);
    },
    [],
  );

  const types = cloud.value?.kind === "coreshub" ? ["official", "user", "custom"] : [];
  const type = types.length === 0 ? undefined : (fields.type ?? seen.find((s) => s.uri === fields.image)?.type ?? notebook?.image?.type ?? "");

  function edit(changes: Partial<Fields>) {
    setFields((f) => ({ ...f, ...changes }));
    setStage((s) => (s.kind === "planned" || s.kind === "planning" || s.kind === "form" ? { kind: "form" } : s));
    attempt.current++; // a plan that is on its way is for what was
  }

  const attempt = useRef(0);

  async function plan() {
    const mine = ++attempt.current;
    setStage({ kind: "planning" });
    const image = fields.image.trim();
    try {
      const answer = await changeImage(name, {
        image,
        ...(type ? { imageType: type } : {}),
        ...(fields.username ? { registryCredential: { username: fields.username, password: fields.password } } : {}),
        validateOnly: true,
      });
      if (mine !== attempt.current) return;
      if (answer.notebook) setNotebook(answer.notebook);
      setStage({
        kind: "planned",
        request: {
          requestId: newRequestId(),
          image,
          ...(type ? { imageType: type } : {}),
          ...(fields.username ? { username: fields.username } : {}),
          ...(fields.reason.trim() ? { reason: fields.reason.trim() } : {}),
          ...(answer.notebook?.etag ? { etag: answer.notebook.etag } : {}),
          acknowledge: [],
          plan: answer.change,
        },
      });
    } catch (cause) {
      if (mine === attempt.current && cause instanceof ApiError) setStage({ kind: "form", error: cause });
    }
  }

  async function send(request: PendingRequest, password: string) {
    // Stored before it is sent: a reload finds it, whatever becomes of the answer.
    requests.keep(name, request);
    setStage({ kind: "sending", request });
    const { image, imageType, username, reason, etag, acknowledge, requestId } = request;
    const body: ChangeImage = {
      image,
      acknowledge,
      requestId,
      wait: "0s",
      ...(imageType ? { imageType } : {}),
      ...(username ? { registryCredential: { username, password } } : {}),
      ...(reason ? { reason } : {}),
      ...(etag ? { etag } : {}),
    };
    try {
      const { change } = await changeImage(name, body);
      forgetPassword();
      if (change.name) {
        requests.keep(name, { ...request, change: change.name });
        setStage({ kind: "following", change: { ...change, name: change.name }, ours: true });
      } else {
        requests.forget(name);
        setStage({ kind: "planned", request: { ...request, plan: change } });
      }
    } catch (cause) {
      if (!(cause instanceof ApiError)) throw cause;
      const change = cause.metadata["change"];
      if (cause.reason === "OUTCOME_UNKNOWN" && change) {
        forgetPassword();
        requests.keep(name, { ...request, change });
        setStage({ kind: "following", change: { ...request.plan, phase: "PHASE_OUTCOME_UNKNOWN", name: change }, ours: true });
      } else if (cause.reason === "CHANGE_IN_PROGRESS" && change) {
        forgetPassword();
        requests.forget(name);
        setStage({ kind: "following", change: { notebook: name, phase: "PHASE_PENDING", name: change }, ours: false });
      } else if (silent.has(cause.reason)) {
        setStage({ kind: "unsure", request, missing: false });
      } else if (passing.has(cause.reason)) {
        setStage({ kind: "planned", request, error: cause });
      } else {
        // Refused: the id has done its work, and what was planned does not hold any more.
        forgetPassword();
        requests.forget(name);
        setStage({ kind: "form", error: cause });
      }
    }
  }

  function forgetPassword() {
    setFields((f) => ({ ...f, password: "" }));
  }

  function anew() {
    requests.forget(name);
    setFields((f) => ({ ...f, username: "", password: "", reason: "" }));
    setStage({ kind: "form" });
    void load();
  }

  const title = (
    <header class="change-head">
      <a href={href(`/${name}`)} class="muted">
        ← {notebook?.displayName || id}
      </a>
      <h1>{t("title")}</h1>
      <p class="muted mono">{name}</p>
    </header>
  );
  if (caller.value && !may) {
    const roles = [...new Set((caller.value.grants ?? []).filter((g) => ["clouds/-", `clouds/${cloudId}`, `clouds/${cloudId}/locations/${locationId}`].includes(g.parent)).map((g) => t(g.role)))];
    return (
      <div class="change">
        {title}
        <div class="problem">
          <p>
            <strong>{t("mayNot")}</strong>
          </p>
          <p>{t("mayNotDetail", { cloud: cloudId, location: locationId, subject: caller.value.subject ?? "?", roles: list(roles) || t("noRoles") })}</p>
        </div>
      </div>
    );
  }
  const can = cloud.value?.capabilities?.some((c) => c.startsWith("CAPABILITY_CHANGE_IMAGE"));
  const underWay = stage.kind === "form" ? [...imageChanges.value.values()].find((c) => c.notebook === name && c.name && !hasEnded(c)) : undefined;
  return (
    <div class="change">
      {title}
      {stage.kind === "following" ? (
        <Following
          change={stage.change}
          ours={stage.ours}
          onChange={(change) => setStage((s) => (s.kind === "following" ? { ...s, change } : s))}
          anew={anew}
        />
      ) : stage.kind === "unsure" ? (
        <Unsure
          stage={stage}
          password={fields.password}
          found={(change) => {
            forgetPassword();
            requests.keep(name, { ...stage.request, change: change.name });
            setStage({ kind: "following", change, ours: true });
          }}
          missing={() => setStage({ ...stage, missing: true })}
          send={(password) => void send(stage.request, password)}
          discard={anew}
        />
      ) : loadError ? (
        <Problem error={loadError} retry={() => void load()} />
      ) : cloud.error ? (
        <Problem error={cloud.error} />
      ) : notebook === undefined || cloud.value === undefined ? (
        <p role="status">{common("loading")}</p>
      ) : notebook === null ? (
        <p class="note bad">{t("notFound")}</p>
      ) : !can ? (
        <p class="note bad">{t("cannot")}</p>
      ) : (
        <>
          {underWay?.name ? (
            <div class="note">
              <p>{t("active")}</p>
              <button type="button" onClick={() => setStage({ kind: "following", change: { ...underWay, name: underWay.name ?? "" }, ours: false })}>
                {t("activeShow")}
              </button>
            </div>
          ) : null}
          <Form
            notebook={notebook}
            fields={fields}
            type={type}
            types={types}
            login={cloud.value.capabilities?.includes("CAPABILITY_REGISTRY_CREDENTIAL") ?? false}
            seen={seen}
            edit={edit}
            plan={() => void plan()}
            planning={stage.kind === "planning"}
            again={stage.kind === "planned" || (stage.kind === "form" && stage.error !== undefined)}
            busy={stage.kind === "sending"}
            error={stage.kind === "form" ? stage.error : undefined}
          />
          {stage.kind === "planned" || stage.kind === "sending" ? (
            <Plan
              key={stage.request.requestId}
              request={stage.request}
              sending={stage.kind === "sending"}
              error={stage.kind === "planned" ? stage.error : undefined}
              send={(codes) => void send({ ...stage.request, acknowledge: codes }, fields.password)}
            />
          ) : null}
        </>
      )}
    </div>
  );
}

// The cloud as the page knows it, or asked for if it does not.
function useCloud(name: string): { value: Cloud | undefined; error: ApiError | undefined } {
  const [asked, setAsked] = useState<Cloud>();
  const [error, setError] = useState<ApiError>();
  const known = clouds.value?.find((c) => c.name === name);
  useEffect(() => {
    if (known || asked) return;
    const abort = new AbortController();
    listClouds(abort.signal).then(
      (all) => {
        const found = all.find((c) => c.name === name);
        if (found) setAsked(found);
        else setError(new ApiError(404, { details: [{ "@type": "google.rpc.ErrorInfo", reason: "CLOUD_NOT_FOUND" }] }));
      },
      (cause: unknown) => {
        if (cause instanceof ApiError) setError(cause);
      },
    );
    return () => abort.abort();
  }, [known !== undefined, connection.value.kind === "open"]);
  const value = known ?? asked;
  return { value, error: value ? undefined : error };
}

function Form(props: {
  notebook: Notebook;
  fields: Fields;
  type: string | undefined;
  types: string[];
  login: boolean;
  seen: SeenImage[];
  edit: (changes: Partial<Fields>) => void;
  plan: () => void;
  planning: boolean;
  again: boolean;
  busy: boolean;
  error: ApiError | undefined;
}) {
  const { notebook: n, fields, type, types, login, seen, edit, error } = props;
  // By their messages' names: the language may change while they are told.
  const [faults, setFaults] = useState<{ image?: "required" | "noSpace"; type?: "requiredType"; login?: "requiredLogin" }>({});
  const form = useRef<HTMLFormElement>(null);
  function submit(event: Event) {
    event.preventDefault();
    const image = fields.image.trim();
    const found: typeof faults = {
      ...(image === "" ? { image: "required" } : /\s/.test(image) ? { image: "noSpace" } : {}),
      ...(types.length > 0 && !type ? { type: "requiredType" } : {}),
      ...((fields.username === "") !== (fields.password === "") ? { login: "requiredLogin" } : {}),
    };
    setFaults(found);
    if (Object.keys(found).length > 0) {
      const at = found.image ? "change-image" : found.type ? "change-type" : fields.username === "" ? "change-username" : "change-password";
      form.current?.querySelector<HTMLElement>(`#${at}`)?.focus();
      return;
    }
    props.plan();
  }
  const faultOf = (own: typeof faults.image | typeof faults.type, field: string) => (own ? t(own) : said(error?.problemOf(field) ?? "") || undefined);
  const imageFault = faultOf(faults.image, "image");
  const typeFault = faultOf(faults.type, "image_type");
  const change = (changes: Partial<Fields>) => {
    setFaults({});
    edit(changes);
  };
  return (
    <form class="card change-form" ref={form} onSubmit={submit} noValidate autocomplete="off">
      <fieldset disabled={props.busy}>
        <dl class="now">
          <dt>{t("now")}</dt>
          <dd>
            <span class="mono">{n.image?.uri || t("noImage")}</span> {n.image?.type ? <span class="muted">({n.image.type})</span> : null} <StateBadge state={n.state} />
          </dd>
        </dl>
        <div class="field">
          <label for="change-image">{t("image")}</label>
          <input
            id="change-image"
            type="text"
            class="mono"
            list="change-images"
            value={fields.image}
            spellcheck={false}
            autocapitalize="off"
            required
            aria-describedby={imageFault ? "change-image-hint change-image-fault" : "change-image-hint"}
            aria-invalid={imageFault ? "true" : undefined}
            onInput={(e) => change({ image: e.currentTarget.value })}
          />
          <datalist id="change-images">
            {seen.map((s) => (
              <option key={s.uri} value={s.uri}>
                {list([s.type, s.count === 1 ? t("seenOnce") : t("seen", { count: s.count })])}
              </option>
            ))}
          </datalist>
          <Fault id="change-image-fault" text={imageFault} />
          <span id="change-image-hint" class="muted hint">
            {t("imageHint")}
          </span>
        </div>
        {types.length > 0 ? (
          <div class="field">
            <label for="change-type">{t("type")}</label>
            <select
              id="change-type"
              value={type}
              aria-describedby={typeFault ? "change-type-hint change-type-fault" : "change-type-hint"}
              aria-invalid={typeFault ? "true" : undefined}
              onChange={(e) => change({ type: e.currentTarget.value })}
            >
              {type ? null : <option value="">{t("typeChoose")}</option>}
              {types.map((k) => (
                <option key={k} value={k}>
                  {t(`type_${k}` as "type_official")}
                </option>
              ))}
            </select>
            <Fault id="change-type-fault" text={typeFault} />
            <span id="change-type-hint" class="muted hint">
              {t("typeHint")}
            </span>
          </div>
        ) : null}
        {login ? (
          <details class="login" open={fields.username !== "" || fields.password !== "" || undefined}>
            <summary>
              {t("login")}
              {common("gap")}
              <span class="muted">{common("brackets", { text: t("optional") })}</span>
            </summary>
            <p id="change-login-hint" class="muted hint">
              {t("loginHint")}
            </p>
            <div class="pair">
              <div class="field">
                <label for="change-username">{t("username")}</label>
                <input
                  id="change-username"
                  type="text"
                  value={fields.username}
                  autocomplete="off"
                  autocapitalize="off"
                  spellcheck={false}
                  aria-describedby={faults.login ? "change-login-hint change-login-fault" : "change-login-hint"}
                  onInput={(e) => change({ username: e.currentTarget.value })}
                />
              </div>
              <div class="field">
                <label for="change-password">{t("password")}</label>
                <input
                  id="change-password"
                  type="password"
                  value={fields.password}
                  autocomplete="new-password"
                  aria-describedby={faults.login ? "change-login-hint change-login-fault" : "change-login-hint"}
                  onInput={(e) => change({ password: e.currentTarget.value })}
                />
              </div>
            </div>
            <Fault id="change-login-fault" text={faults.login && t(faults.login)} />
          </details>
        ) : null}
        <div class="field">
          <label for="change-reason">
            {t("reason")}
            {common("gap")}
            <span>{common("brackets", { text: t("optional") })}</span>
          </label>
          <input id="change-reason" type="text" maxLength={1024} value={fields.reason} aria-describedby="change-reason-hint" onInput={(e) => change({ reason: e.currentTarget.value })} />
          <span id="change-reason-hint" class="muted hint">
            {t("reasonHint")}
          </span>
        </div>
        {error ? <Problem error={error} /> : null}
        <div class="actions">
          <button type="submit" class={props.again && !error ? "" : "primary"} disabled={props.planning}>
            {props.planning ? t("planning") : props.again ? t("planAgain") : t("plan")}
          </button>
        </div>
      </fieldset>
    </form>
  );
}

function Fault({ id, text }: { id: string; text: string | undefined }) {
  return text ? (
    <span id={id} class="fault" role="alert">
      {text}
    </span>
  ) : null;
}

function Plan(props: { request: PendingRequest; sending: boolean; error: ApiError | undefined; send: (codes: string[]) => void }) {
  const { plan } = props.request;
  const [ticked, setTicked] = useState<ReadonlySet<string>>(() => new Set(props.error ? props.request.acknowledge : []));
  const title = useRef<HTMLHeadingElement>(null);
  useEffect(() => title.current?.focus(), []);
  const ready = allTicked(plan, ticked);
  const unchanged = plan.phase === "PHASE_UNCHANGED";
  const tick = (code: string, on: boolean) => {
    const next = new Set(ticked);
    if (on) next.add(code);
    else next.delete(code);
    setTicked(next);
  };
  return (
    <section class="card plan" aria-labelledby="plan-title">
      <h2 id="plan-title" tabIndex={-1} ref={title}>
        {t("planTitle")}
      </h2>
      {unchanged ? <p>{t("unchanged")}</p> : <p class="muted">{t("planHint")}</p>}
      <FromTo change={plan} />
      {unchanged ? null : (
        <>
          <p>
            <span class="muted">
              {t("way")}
              {common("colon")}
            </span>
            {t(recreates(plan) ? "wayRecreate" : "wayInPlace")}
          </p>
          {plan.steps?.length ? (
            <>
              <h3>{t("steps")}</h3>
              <ol>
                {plan.steps.map((s) => (
                  <li key={s}>
                    <Said text={s} />
                  </li>
                ))}
              </ol>
            </>
          ) : null}
          {plan.warnings?.length ? (
            <fieldset class="warnings" disabled={props.sending}>
              <legend>{t("warnings")}</legend>
              <p class="muted hint">{t("warningsHint")}</p>
              {plan.warnings.map((w) => (
                <label key={w.code} class="warning">
                  <input type="checkbox" checked={ticked.has(w.code)} onChange={(e) => tick(w.code, e.currentTarget.checked)} />
                  <span>
                    <Said text={w.message ?? w.code} /> <code>{w.code}</code>
                  </span>
                </label>
              ))}
            </fieldset>
          ) : (
            <p>{t("noWarnings")}</p>
          )}
          {props.error ? <Problem error={props.error} /> : null}
          <div class="actions">
            <button
              type="button"
              class="primary"
              disabled={!ready || props.sending}
              aria-describedby={ready ? undefined : "plan-change-hint"}
              onClick={() => props.send(acknowledged(plan, ticked))}
            >
              {props.sending ? t("sending") : t("change")}
            </button>
            {ready ? null : (
              <span id="plan-change-hint" class="muted">
                {t("changeHint")}
              </span>
            )}
          </div>
        </>
      )}
    </section>
  );
}

function FromTo({ change: c }: { change: ImageChange }) {
  return (
    <dl class="from-to">
      {c.fromImage ? (
        <>
          <dt>{t("from")}</dt>
          <dd class="mono">{c.fromImage}</dd>
        </>
      ) : null}
      {c.toImage ? (
        <>
          <dt>{t("to")}</dt>
          <dd class="mono to">{c.toImage}</dd>
        </>
      ) : null}
      {c.imageType ? (
        <>
          <dt>{t("kind")}</dt>
          <dd>{c.imageType}</dd>
        </>
      ) : null}
    </dl>
  );
}

/** How often a change is asked for while the watch does not tell of it, or to be sure. */
const pollLost = 3000;
const pollSure = 10_000;

function Following(props: { change: ImageChange & { name: string }; ours: boolean; onChange: (change: ImageChange & { name: string }) => void; anew: () => void }) {
  const { name } = props.change;
  const change = newer(props.change, imageChanges.value.get(name)) ?? props.change;
  const ended = hasEnded(change);
  const [error, setError] = useState<ApiError>();
  const told = useRef(change);
  told.current = change;

  // Which phase it was seen in last: the record of a failure does not say.
  const seen = useRef<ChangePhase | undefined>(undefined);
  if (!ended && change.phase && change.phase !== "PHASE_OUTCOME_UNKNOWN") seen.current = change.phase;

  const key = `${change.phase} ${change.updateTime}`;
  useEffect(() => props.onChange({ ...change, name }), [key]);

  const open = connection.value.kind === "open";
  useEffect(() => {
    if (ended) return;
    let stopped = false;
    let timer: ReturnType<typeof setTimeout>;
    const ask = async () => {
      try {
        const answer = await getImageChange(name);
        if (stopped) return;
        setError(undefined);
        const latest = newer(told.current, answer) ?? answer;
        // What the record has, and a plan that was made here has not, is taken over.
        props.onChange({ ...told.current, ...latest, name });
      } catch (cause) {
        if (!stopped && cause instanceof ApiError && cause.reason !== "SERVER_LOST") setError(cause);
      }
      if (!stopped) timer = setTimeout(ask, open ? pollSure : pollLost);
    };
    void ask();
    return () => {
      stopped = true;
      clearTimeout(timer);
    };
  }, [name, ended, open]);

  const title = useRef<HTMLHeadingElement>(null);
  useEffect(() => title.current?.focus(), []);
  const took = tookOf(change, now.value);
  return (
    <section class="card follow" aria-labelledby="follow-title">
      <div class="follow-head">
        <h2 id="follow-title" tabIndex={-1} ref={title}>
          {props.ours || ended ? t("progress") : t("others")}
        </h2>
        <span role="status">
          <PhaseBadge phase={change.phase} />
        </span>
        {took === undefined ? null : <span class="muted">{t(ended ? "tookAll" : "elapsed", { duration: duration(took) })}</span>}
      </div>
      {props.ours || ended || !change.principal ? null : <p>{t("othersDetail", { principal: change.principal, when: ago(change.createTime) })}</p>}
      <FromTo change={change} />
      <Stepper steps={stepper(change, seen.current)} recreate={recreates(change)} />
      {error ? <Problem error={error} /> : null}
      {change.phase === "PHASE_OUTCOME_UNKNOWN" ? <p class="note">{t("unknownHint")}</p> : null}
      {ended ? <Result change={change} /> : <p class="muted">{open ? t("leave") : t("lostFollow")}</p>}
      <div class="actions">
        <a class="button" href={href(`/${notebookOf(change)}`)}>
          {change.phase === "PHASE_SUCCEEDED" && change.newNotebook ? t("toNew") : t("toNotebook")}
        </a>
        {ended && !(change.phase === "PHASE_SUCCEEDED" && change.newNotebook) ? (
          <button type="button" onClick={props.anew}>
            {t("another")}
          </button>
        ) : null}
      </div>
    </section>
  );
}

const stepSign = { done: "✓", current: "●", todo: "○", failed: "✕", unknown: "?" } as const;

function Stepper({ steps, recreate }: { steps: Step[]; recreate: boolean }) {
  const word = { done: t("stepDone"), current: t("stepCurrent"), todo: t("stepTodo"), failed: t("stepFailed"), unknown: t("stepUnknown") };
  return (
    <ol class="stepper" aria-label={t("steps")}>
      {steps.map((s) => (
        <li key={s.phase} class={s.state} aria-current={s.state === "current" || s.state === "unknown" ? "step" : undefined}>
          <span class="sign" aria-hidden="true">
            {stepSign[s.state]}
          </span>
          <span>
            {stepWord(s.phase, recreate)}
            <span class="sr-only">, {word[s.state]}</span>
          </span>
        </li>
      ))}
    </ol>
  );
}

function stepWord(phase: ChangePhase, recreate: boolean): string {
  switch (phase) {
    case "PHASE_VERIFYING":
      return t(recreate ? "step_PHASE_VERIFYING_recreate" : "step_PHASE_VERIFYING");
    case "PHASE_PENDING":
    case "PHASE_STOPPING":
    case "PHASE_CREATING":
    case "PHASE_RENAMING":
    case "PHASE_RELEASING":
    case "PHASE_SUCCEEDED":
    case "PHASE_UNCHANGED":
    case "PHASE_FAILED":
      return t(`step_${phase}`);
    default:
      return phaseWord(phase);
  }
}

function Result({ change: c }: { change: ImageChange }) {
  if (c.phase === "PHASE_FAILED") {
    return (
      <div class="problem" role="alert">
        <p>
          <strong>{t("failed")}</strong>
          {common("gap")}
          {reasonWord(c.failure?.reason)}
        </p>
        {c.failure?.message ? (
          <p class="detail">
            <Said text={c.failure.message} />
          </p>
        ) : null}
        {c.failure?.cloudCode ? (
          <p class="detail">
            {t("cloudCode")}
            {common("colon")}
            <code>{c.failure.cloudCode}</code>
          </p>
        ) : null}
        {c.cloudRequestId ? (
          <p class="detail">
            {t("cloudRequest")}
            {common("colon")}
            <code>{c.cloudRequestId}</code> <Copy text={c.cloudRequestId} />
          </p>
        ) : null}
        <p>{t(c.sent ? "failedSent" : "failedUnsent")}</p>
      </div>
    );
  }
  if (c.phase === "PHASE_UNCHANGED") return <p class="note good">{t("unchanged")}</p>;
  return (
    <p class="note good">
      <strong>{t("succeeded")}</strong>
      {common("gap")}
      {t(c.newNotebook ? "succeededRecreate" : "succeededInPlace")}
    </p>
  );
}

function Unsure(props: {
  stage: { request: PendingRequest; missing: boolean };
  password: string;
  found: (change: ImageChange & { name: string }) => void;
  missing: () => void;
  send: (password: string) => void;
  discard: () => void;
}) {
  const { request, missing } = props.stage;
  const [password, setPassword] = useState(props.password);
  const [error, setError] = useState<ApiError>();
  const needsPassword = useMemo(() => request.username !== undefined && props.password === "", []);
  useEffect(() => {
    if (missing) return;
    let stopped = false;
    let timer: ReturnType<typeof setTimeout>;
    const ask = async () => {
      try {
        const answer = await listImageChanges({ filter: `request_id = ${quote(request.requestId)}` });
        if (stopped) return;
        const change = answer.imageChanges?.[0];
        if (change?.name) props.found({ ...change, name: change.name });
        else props.missing();
        return;
      } catch (cause) {
        if (!stopped && cause instanceof ApiError) setError(cause.reason === "SERVER_LOST" ? undefined : cause);
      }
      if (!stopped) timer = setTimeout(ask, pollLost);
    };
    void ask();
    return () => {
      stopped = true;
      clearTimeout(timer);
    };
  }, [request.requestId, missing]);
  return (
    <section class="card follow" aria-labelledby="unsure-title">
      <h2 id="unsure-title">{t(missing ? "unsureNot" : "unsure")}</h2>
      <FromTo change={request.plan} />
      <p role="status">{missing ? t("unsureMissing") : t("unsureAsking")}</p>
      {error ? <Problem error={error} /> : null}
      {missing ? (
        <form
          class="again"
          onSubmit={(e) => {
            e.preventDefault();
            if (!needsPassword || password) props.send(password);
          }}
        >
          {needsPassword ? (
            <div class="field">
              <label for="unsure-password">{t("password")}</label>
              <input id="unsure-password" type="password" required autocomplete="new-password" aria-describedby="unsure-password-hint" value={password} onInput={(e) => setPassword(e.currentTarget.value)} />
              <span id="unsure-password-hint" class="muted hint">
                {t("passwordAgain")}
              </span>
            </div>
          ) : null}
          <p class="muted hint">{t("sendAgainHint")}</p>
          <div class="actions">
            <button type="submit" class="primary">
              {t("sendAgain")}
            </button>
            <button type="button" onClick={props.discard}>
              {t("discard")}
            </button>
          </div>
        </form>
      ) : null}
    </section>
  );
}
