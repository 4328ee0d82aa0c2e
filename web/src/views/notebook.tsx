import type { ComponentChildren } from "preact";
import { useEffect, useMemo } from "preact/hooks";
import { mayOperate } from "../api/session";
import type { Location, Notebook } from "../api/types";
import { Entry, linkTo } from "../changes/entry";
import { merge, previousOf } from "../changes/history";
import { isAbout, ofNotebook } from "../changes/of-notebook";
import { timeline, type Seen } from "../changes/timeline";
import { locale } from "../i18n";
import { t as common } from "../i18n/common";
import { t } from "../i18n/notebook";
import { reasonWord, stateWord } from "../i18n/words";
import { clouds, imageChanges } from "../live/live";
import { href } from "../router";
import { LocationBadge, StateBadge } from "../ui/badge";
import { Copy } from "../ui/copy";
import { Problem } from "../ui/problem";
import { Said } from "../ui/said";
import { ago, clockTime, countdown, now } from "../ui/time";
import { later } from "./clouds-model";
import { watchNotebook } from "./notebook-watch";
import "./notebook.css";

/** NotebookView tells all about one notebook, as it changes. */
export function NotebookView({ name }: { name: string }) {
  const { watched, close } = useMemo(() => watchNotebook(name), [name]);
  const history = useMemo(() => ofNotebook(name), [name]);
  useEffect(() => close, [close]);
  useEffect(() => void history.load(), [history]);

  const { notebook, location: told, complete, deletedAt, seen, changes: toldChanges, refused } = watched.value;
  const [, cloud = "", , place = "", , id = ""] = name.split("/");
  // A watch tells a location when its state changes, CloudService also when it was read.
  const read = clouds.value?.find((c) => c.name === `clouds/${cloud}`)?.locations?.find((l) => l.name === `clouds/${cloud}/locations/${place}`);
  const location = later(told, read);
  const live = [...imageChanges.value.values(), ...toldChanges.values()].filter((c) => isAbout(c, name));
  const all = merge(history.changes.value ?? [], live);
  const successor = all.find((c) => c.notebook === name && c.newNotebook && c.phase === "PHASE_SUCCEEDED")?.newNotebook;
  const gone = deletedAt !== undefined || (complete && !notebook);
  const may = mayOperate(name);
  const previous = notebook && !gone && may ? previousOf(name, all) : undefined;

  return (
    <div class="one">
      <nav aria-label={t("path")} class="path muted">
        <a href={href("/")}>{common("notebooks")}</a>
        <span aria-hidden="true"> / </span>
        <a href={href("/", { filter: `cloud = ${cloud}` })}>{cloud}</a>
        <span aria-hidden="true"> / </span>
        <a href={href("/", { filter: `cloud = ${cloud} AND location = ${place}` })}>{place}</a>
      </nav>
      <header class="one-head">
        <div class="one-title">
          <h1>{notebook?.displayName || id}</h1>
          {notebook && !gone ? <StateBadge state={notebook.state} /> : null}
        </div>
        <div class="one-actions">
          {notebook && !gone && may ? (
            <a class="button" href={href(`/${name}/change`)}>
              {t("changeImage")}
            </a>
          ) : null}
          {previous ? (
            <a class="button" href={linkTo(previous)}>
              {t("back")}
            </a>
          ) : null}
          <Copy text={name} label={t("copyName")} shown />
          <a class="button" href={href("/", { filter: `cloud = ${cloud} AND location = ${place}` })}>
            {t("sameLocation")}
          </a>
        </div>
      </header>
      {notebook && !gone && !may ? <p class="muted may-not">{t("mayNot")}</p> : null}

      {!notebook && !complete && !refused ? <p role="status">{common("loading")}</p> : null}
      {refused ? notebook ? <Notice title={t("cannotWatch")} bad text={reasonWord(refused.reason)} /> : <Problem error={refused} /> : null}
      {complete && !notebook ? <Missing location={location} /> : null}
      {notebook && deletedAt !== undefined ? <Notice title={t("deleted")} bad text={t("deletedDetail", { when: ago(deletedAt) })} /> : null}
      {successor ? (
        <p class="note">
          {t("replaced")} <a href={href(`/${successor}`)}>{t("toNew")}</a>
        </p>
      ) : null}
      {notebook && location && !gone ? <Staleness location={location} /> : null}

      {notebook ? <Fields notebook={notebook} location={location} /> : null}

      <section class="card" aria-labelledby="one-timeline">
        <h2 id="one-timeline">{t("timeline")}</h2>
        <p class="muted">{t("timelineHint")}</p>
        {history.error.value ? <Problem error={history.error.value} retry={() => void history.load()} /> : null}
        <Timeline all={all} seen={seen} loading={history.changes.value === undefined && !history.error.value} />
        {history.more.value ? (
          <button type="button" onClick={() => void history.load()}>
            {t("more")}
          </button>
        ) : null}
      </section>
    </div>
  );
}

function Notice({ title, text, bad, children }: { title: string; text: string; bad?: boolean; children?: ComponentChildren }) {
  return (
    <div class={bad ? "note bad" : "note"} role="status">
      <strong>{title}</strong>
      <p>{text}</p>
      {children}
    </div>
  );
}

// Not there: because it is not, or because nobody can know.
function Missing({ location: l }: { location: Location | undefined }) {
  if (l?.state === "STATE_DISABLED") return <Notice bad title={t("notFound")} text={reasonWord(l.reason ?? "LOCATION_DISABLED")} />;
  if (l && !l.lastSuccessTime) {
    return (
      <Notice bad title={t("notYet")} text={t("notYetDetail")}>
        <LocationTrouble location={l} />
      </Notice>
    );
  }
  return (
    <Notice bad title={t("notFound")} text={t("notFoundDetail")}>
      {l && l.state !== "STATE_LIVE" ? <p>{l.lastSuccessTime ? t("staleDetail", { when: ago(l.lastSuccessTime) }) : ""}</p> : null}
    </Notice>
  );
}

function Staleness({ location: l }: { location: Location }) {
  if (l.state === "STATE_LIVE" || l.state === undefined) return null;
  const when = l.lastSuccessTime ? t("staleDetail", { when: ago(l.lastSuccessTime) }) : t("staleNever");
  return (
    <Notice title={t("staleTitle")} text={l.state === "STATE_DISABLED" ? `${t("disabledDetail")} ${when}` : when}>
      <LocationTrouble location={l} />
    </Notice>
  );
}

function LocationTrouble({ location: l }: { location: Location }) {
  return (
    <>
      {l.reason ? <p>{reasonWord(l.reason)}</p> : null}
      {l.message ? (
        <p class="muted">
          <Said text={l.message} /> {l.cloudCode ? <code>{l.cloudCode}</code> : null}
        </p>
      ) : null}
    </>
  );
}

type Row = [term: string, value: ComponentChildren | undefined];

function Group({ title, rows, hint }: { title: string; rows: Row[]; hint?: string }) {
  const set = rows.filter(([, value]) => value !== undefined && value !== "" && value !== null);
  if (set.length === 0) return null;
  return (
    <section class="card group">
      <h2>{title}</h2>
      <dl>
        {set.map(([term, value]) => (
          <div key={term}>
            <dt>{term}</dt>
            <dd>{value}</dd>
          </div>
        ))}
      </dl>
      {hint ? <p class="muted small">{hint}</p> : null}
    </section>
  );
}

function copyable(text: string | undefined): ComponentChildren | undefined {
  return text ? (
    <>
      <span class="mono">{text}</span> <Copy text={text} />
    </>
  ) : undefined;
}

function when(time: string | undefined): ComponentChildren | undefined {
  return time ? (
    <time dateTime={time} title={ago(time)}>
      {clockTime(time)} <span class="muted">({ago(time)})</span>
    </time>
  ) : undefined;
}

function until(time: string | undefined): ComponentChildren | undefined {
  if (!time) return undefined;
  return Date.parse(time) > now.value ? (
    <time dateTime={time}>
      <span class="mono">{countdown(time)}</span> <span class="muted">({clockTime(time)})</span>
    </time>
  ) : (
    t("past", { when: ago(time) })
  );
}

const number = (n: number | undefined, digits = 0) => (n === undefined ? undefined : new Intl.NumberFormat(locale(), { maximumFractionDigits: digits }).format(n));

function bytes(text: string | undefined): string | undefined {
  if (!text || text === "0") return undefined;
  const n = Number(text);
  const [size, unit] = n >= 2 ** 40 ? [2 ** 40, "TiB"] : n >= 2 ** 30 ? [2 ** 30, "GiB"] : n >= 2 ** 20 ? [2 ** 20, "MiB"] : [1, "B"];
  return `${number(n / (size as number), 1)} ${unit}`;
}

// Only addresses of the web become links: a cloud's text is not to be trusted with others.
function address(url: string | undefined): ComponentChildren | undefined {
  if (!url) return undefined;
  return (
    <>
      {/^https?:\/\//i.test(url) ? (
        <a href={url} target="_blank" rel="noopener noreferrer" class="mono">
          {url}
        </a>
      ) : (
        <span class="mono">{url}</span>
      )}{" "}
      <Copy text={url} />
    </>
  );
}

function Fields({ notebook: n, location: l }: { notebook: Notebook; location: Location | undefined }) {
  const a = n.resources?.accelerator;
  const attributes = Object.entries(n.attributes ?? {}).sort(([x], [y]) => x.localeCompare(y));
  return (
    <>
      <div class="groups">
        <Group
          title={t("overview")}
          rows={[
            [t("displayName"), n.displayName],
            [t("id"), copyable(n.name.split("/").at(-1))],
            [t("name"), copyable(n.name)],
            [t("state"), <StateBadge state={n.state} />],
            [t("cloudState"), n.cloudState],
            [t("stateMessage"), n.stateMessage],
            [t("progress"), number(n.progress, 2)],
            [t("serverType"), n.serverType],
            [t("createTime"), when(n.createTime)],
            [t("updateTime"), when(n.updateTime)],
            [t("observeTime"), when(n.observeTime)],
          ]}
        />
        <Group
          title={t("image")}
          rows={[
            [t("uri"), copyable(n.image?.uri)],
            [t("imageName"), n.image?.displayName],
            [t("imageType"), n.image?.type],
            [t("size"), bytes(n.image?.sizeBytes)],
          ]}
        />
        <Group
          title={t("resources")}
          rows={[
            [t("accelerator"), a && (a.count || a.model || a.type) ? `${number(a.count ?? 0)} × ${a.model || a.type?.toUpperCase() || "?"}${a.model && a.type ? ` (${a.type})` : ""}` : undefined],
            [t("available"), number(a?.availableCount)],
            [t("max"), number(a?.maxCount)],
            [t("cpu"), number(n.resources?.cpuCores || undefined, 2)],
            [t("memory"), bytes(n.resources?.memoryBytes)],
            [t("group"), copyable(n.resourceGroup?.code)],
            [t("groupId"), n.resourceGroup?.id],
          ]}
        />
        <Group
          title={t("addresses")}
          rows={[
            [t("serviceUrl"), address(n.endpoints?.serviceUrl)],
            [t("sshUrl"), address(n.endpoints?.sshUrl)],
            [t("serviceIp"), copyable(n.endpoints?.serviceIp)],
            [t("customPort"), n.endpoints?.customPort || undefined],
          ]}
        />
        <Group
          title={t("planned")}
          rows={[
            [t("stopTime"), until(n.stopTime)],
            [t("expireTime"), until(n.expireTime)],
          ]}
        />
        <Group
          title={t("owner")}
          rows={[
            [t("ownerId"), copyable(n.ownerId)],
            [t("rootOwnerId"), copyable(n.rootOwnerId)],
            [t("namespace"), copyable(n.namespace)],
          ]}
        />
        <Group
          title={t("inside")}
          {...(n.envNames?.length ? { hint: t("envHint") } : {})}
          rows={[
            [
              t("envNames"),
              n.envNames?.length ? (
                <ul class="env">
                  {n.envNames.map((e) => (
                    <li key={e} class="mono">
                      {e}
                    </li>
                  ))}
                </ul>
              ) : undefined,
            ],
            [t("pip"), n.mirrors?.pip],
            [t("conda"), n.mirrors?.conda],
            [t("apt"), n.mirrors?.apt],
          ]}
        />
        <Group
          title={t("location")}
          rows={[
            [t("displayName"), l?.displayName],
            [t("locationState"), l ? <LocationBadge state={l.state} /> : undefined],
            [t("lastRead"), l ? (l.lastSuccessTime ? ago(l.lastSuccessTime) : common("never")) : undefined],
            [t("lastError"), l?.message ? <Said text={l.message} /> : undefined],
          ]}
        />
      </div>
      {attributes.length > 0 ? (
        <section class="card" aria-labelledby="one-attributes">
          <h2 id="one-attributes">{t("attributes")}</h2>
          <details open={attributes.length <= 12}>
            <summary>{t("attributesCount", { count: attributes.length })}</summary>
            <table class="attributes">
              <tbody>
                {attributes.map(([key, value]) => (
                  <tr key={key}>
                    <th scope="row" class="mono">
                      {key}
                    </th>
                    <td>{value}</td>
                  </tr>
                ))}
              </tbody>
            </table>
          </details>
        </section>
      ) : null}
    </>
  );
}

function Timeline({ all, seen, loading }: { all: ReturnType<typeof merge>; seen: readonly Seen[]; loading: boolean }) {
  const entries = timeline(all, seen);
  if (entries.length === 0) return <p role="status">{loading ? common("loading") : t("timelineEmpty")}</p>;
  return (
    <ol class="timeline" aria-label={t("timeline")}>
      {entries.map((e) =>
        e.kind === "change" ? (
          <li key={e.change.name} class="is-change">
            <Entry change={e.change} all={all} ofOne />
          </li>
        ) : (
          <li key={`${e.kind} ${e.time}`}>
            <SeenEntry seen={e} />
          </li>
        ),
      )}
    </ol>
  );
}

function SeenEntry({ seen: e }: { seen: Seen }) {
  const title = { modified: t("seenModified"), deleted: t("seenDeleted"), back: t("seenBack") }[e.kind];
  return (
    <article class="seen">
      <div class="seen-head">
        <span class={e.kind === "deleted" ? "badge bad" : "badge"}>{title}</span>
        <time dateTime={new Date(e.time).toISOString()} title={clockTime(new Date(e.time).toISOString())}>
          {ago(e.time)}
        </time>
      </div>
      {e.kind === "modified" ? (
        <dl class="fields">
          {e.fields.map((f) => (
            <div key={f.path}>
              <dt class="mono">{f.path}</dt>
              <dd>
                <span class="sr-only">
                  {t("old")}
                  {common("colon")}
                </span>
                <del>{valueWord(f.path, f.from)}</del> <span aria-hidden="true" class="arrow">→</span>
                <span class="sr-only">
                  {" "}
                  {t("new")}
                  {common("colon")}
                </span>
                <ins>{valueWord(f.path, f.to)}</ins>
              </dd>
            </div>
          ))}
        </dl>
      ) : null}
    </article>
  );
}

function valueWord(path: string, value: string): string {
  if (path === "state") return stateWord(value || undefined);
  if (value === "") return t("nothing");
  return path.endsWith("_time") ? clockTime(value) : value;
}
