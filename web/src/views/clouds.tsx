import type { ComponentChildren } from "preact";
import type { Breaker, Cloud, Location } from "../api/types";
import { parseDuration } from "../api/errors";
import { lang, locale } from "../i18n";
import { t } from "../i18n/clouds";
import { t as common } from "../i18n/common";
import { locationStateWord, reasonWord } from "../i18n/words";
import { clouds, cloudsError, connection, locations, readClouds } from "../live/live";
import { href } from "../router";
import { LocationBadge } from "../ui/badge";
import { duration } from "../ui/duration";
import { list } from "../ui/format";
import { Problem } from "../ui/problem";
import { Said } from "../ui/said";
import { ago, clockTime, now } from "../ui/time";
import { hour, pools, scaleOf, segments, shares, sharesCards, worst, type Segment } from "./clouds-model";
import "./clouds.css";

/** CloudsView tells how well notebookd reaches each cloud, and how full they are. */
export function CloudsView() {
  const all = clouds.value;
  const error = cloudsError.value;
  return (
    <div class="clouds">
      <h1>{t("title")}</h1>
      {error && (error.reason !== "SERVER_LOST" || connection.value.kind === "open") ? <Problem error={error} retry={() => void readClouds()} /> : null}
      {all === undefined && !error ? <p role="status">{common("loading")}</p> : null}
      {all?.length === 0 ? <p>{t("none")}</p> : null}
      {all?.map((cloud) => <CloudCard key={cloud.name} cloud={cloud} everywhere={all.flatMap(latest)} />)}
    </div>
  );
}

// A location event of the watch is told at once, CloudService is asked now and then; only the latter knows the history.
function latest(cloud: Cloud): Location[] {
  return (cloud.locations ?? []).map((read) => {
    const told = locations.value.get(read.name);
    if (!told || Date.parse(told.lastAttemptTime ?? "") <= Date.parse(read.lastAttemptTime ?? "")) return read;
    return { ...told, ...(read.stateHistory ? { stateHistory: read.stateHistory } : {}) };
  });
}

const idOf = (name: string) => name.split("/").at(-1) ?? name;

function CloudCard({ cloud, everywhere }: { cloud: Cloud; everywhere: Location[] }) {
  const id = idOf(cloud.name);
  const capabilities = (cloud.capabilities ?? []).filter((c) => c in capabilityWords);
  const places = latest(cloud);
  const kinds = [...new Set(places.flatMap((l) => [...pools(l).keys()]))].sort();
  return (
    <section class="card cloud" aria-labelledby={`cloud-${id}`}>
      <header>
        <h2 id={`cloud-${id}`}>{id}</h2>
        <span class="muted">{cloud.kind}</span>
      </header>
      {cloud.reason ? (
        <div class="problem">
          <p>
            <strong>{t("wholeReason")}</strong> {reasonWord(cloud.reason)}
          </p>
          <p class="detail">
            <code>{cloud.reason.replace(/^ERROR_REASON_/, "")}</code>
          </p>
        </div>
      ) : null}
      <dl class="facts">
        <Fact term={t("capabilities")}>
          {capabilities.length > 0 ? (
            <ul class="plain">
              {capabilities.map((c) => (
                <li key={c}>{t(capabilityWords[c as keyof typeof capabilityWords])}</li>
              ))}
            </ul>
          ) : (
            t("cannot")
          )}
        </Fact>
        <Fact term={t("budget")}>
          <Budget cloud={cloud} />
        </Fact>
      </dl>
      {places.length === 0 ? (
        <p class="muted">{t("noLocations")}</p>
      ) : (
        <ul class="locations" aria-label={t("locations", { cloud: id })}>
          {places.map((l) => (
            <li key={l.name}>
              <LocationCard location={l} everywhere={everywhere} />
            </li>
          ))}
        </ul>
      )}
      {kinds.length > 0 ? (
        <p class="muted small">
          {t("cardsScale", { scales: list(kinds.map((kind) => `${kindWord(kind)} 0–${number(scaleOf(everywhere, kind))}`)) })} {places.some(sharesCards) ? t("cardsShared") : ""}
        </p>
      ) : null}
    </section>
  );
}

const kindWord = (kind: string) => kind.toUpperCase() || common("unknown");

const capabilityWords = {
  CAPABILITY_CHANGE_IMAGE_IN_PLACE: "CAPABILITY_CHANGE_IMAGE_IN_PLACE",
  CAPABILITY_CHANGE_IMAGE_RECREATE: "CAPABILITY_CHANGE_IMAGE_RECREATE",
  CAPABILITY_REGISTRY_CREDENTIAL: "CAPABILITY_REGISTRY_CREDENTIAL",
} as const;

function Fact({ term, children }: { term: string; children: ComponentChildren }) {
  return (
    <div>
      <dt>{term}</dt>
      <dd>{children}</dd>
    </div>
  );
}

const number = (n: number) => new Intl.NumberFormat(locale()).format(n);

function Budget({ cloud }: { cloud: Cloud }) {
  const budget = cloud.budget;
  if (!budget) return <span class="muted">{t("budgetHidden")}</span>;
  const perHour = budget.callsPerHour ?? 0;
  if (perHour === 0) return <span class="muted">{t("budgetNone")}</span>;
  const remaining = budget.remaining ?? 0;
  // What is left for now refills all the time: a tenth of an hour's calls is a full bucket.
  const full = Math.max(remaining, perHour / 10, 1);
  const text = t("budgetText", { remaining: number(remaining), perHour: number(perHour) });
  return (
    <>
      <meter class="budget" min={0} max={full} low={full / 10} value={remaining} aria-label={t("budget")} aria-valuetext={text} />
      <span>{text}</span>
    </>
  );
}

function LocationCard({ location: l, everywhere }: { location: Location; everywhere: Location[] }) {
  const [, cloud = "", , id = ""] = l.name.split("/");
  const heading = `location-${cloud}-${id}`;
  const count = l.notebookCount ?? 0;
  const broken = l.state !== "STATE_LIVE" && l.state !== undefined;
  return (
    <article class="location" aria-labelledby={heading}>
      <header>
        <h3 id={heading}>
          <span class="mono">{id}</span> {l.displayName && l.displayName !== id ? <span class="muted">{l.displayName}</span> : null}
        </h3>
        <LocationBadge state={l.state} />
      </header>
      {broken && (l.reason || l.message) ? (
        <div class={l.state === "STATE_DISABLED" ? "note" : "note bad"}>
          {l.reason ? <p>{reasonWord(l.reason)}</p> : null}
          {l.message || l.cloudCode ? (
            <p class="detail">
              <Said text={l.message ?? ""} />
              {l.cloudCode ? <span> {common("brackets", { text: `${t("cloudCode")} ${l.cloudCode}` })}</span> : null}
            </p>
          ) : null}
        </div>
      ) : null}
      <dl class="facts">
        <Fact term={t("notebooks")}>
          <a href={href("/", { filter: `cloud = ${cloud} AND location = ${id}` })}>{count === 1 ? t("notebooksOne") : t("notebooksLink", { count: number(count) })}</a>
        </Fact>
        <Fact term={t("lastSuccess")}>{l.lastSuccessTime ? <time dateTime={l.lastSuccessTime} title={clockTime(l.lastSuccessTime)}>{ago(l.lastSuccessTime)}</time> : common("never")}</Fact>
        {l.pollInterval ? <Fact term={t("interval")}>{duration(parseDuration(l.pollInterval))}</Fact> : null}
        {l.nextAttemptTime ? (
          <Fact term={t("next")}>{Date.parse(l.nextAttemptTime) > now.value ? t("nextIn", { left: left(l.nextAttemptTime) }) : t("nextNow")}</Fact>
        ) : null}
        {l.breakers?.length ? (
          <Fact term={t("breakers")}>
            <ul class="plain breakers">
              {worst(l.breakers).map((b) => (
                <li key={b.operation}>
                  <BreakerState breaker={b} />
                </li>
              ))}
            </ul>
          </Fact>
        ) : null}
      </dl>
      <LastHour location={l} />
      {l.resourceGroups?.length ? <Cards location={l} everywhere={everywhere} /> : null}
    </article>
  );
}

function BreakerState({ breaker: b }: { breaker: Breaker }) {
  const state = b.state ?? "STATE_CLOSED";
  const tone = state === "STATE_CLOSED" ? "good" : state === "STATE_OPEN" ? "bad" : "busy";
  const open = b.openUntil ? Date.parse(b.openUntil) > now.value : false;
  return (
    <span class={`badge ${tone}`}>
      {b.operation ? t(b.operation) : ""} {t(state)}
      {state === "STATE_OPEN" ? `${lang.value === "zh" ? "，" : ", "}${open ? t("openUntil", { left: left(b.openUntil) }) : t("untilNow")}` : ""}
    </span>
  );
}

// Whole seconds, which tick.
function left(time: string | undefined): string {
  return duration(Math.max(1, Math.ceil((Date.parse(time ?? "") - now.value) / 1000)) * 1000);
}

const segmentClass: Record<string, string> = {
  STATE_LIVE: "live",
  STATE_STALE: "stale",
  STATE_UNREACHABLE: "unreachable",
  STATE_DISABLED: "disabled",
};

const segmentWord = (state: string | undefined) => (state === undefined ? t("hourUnknown") : locationStateWord(state));

function timeOfDay(ms: number): string {
  return new Intl.DateTimeFormat(locale(), { timeStyle: "medium" }).format(ms);
}

function span(s: Segment, last: boolean): string {
  const why = s.reasons.length > 0 ? ` (${list(s.reasons.map((r) => r.replace(/^ERROR_REASON_/, "")))})` : "";
  const state = segmentWord(s.state) + why;
  return last ? t("hourSince", { from: timeOfDay(s.from), state }) : t("hourFrom", { from: timeOfDay(s.from), to: timeOfDay(s.to), state });
}

/** LastHour is a strip of the states of the last hour, with the same as a list. */
function LastHour({ location: l }: { location: Location }) {
  // To ten seconds: it need not be drawn anew every second.
  const at = Math.floor(now.value / 10_000) * 10_000;
  if (!l.stateHistory) return null;
  const all = segments(l.stateHistory, Math.max(at, ...l.stateHistory.map((p) => Date.parse(p.startTime ?? "") || 0)));
  const parts = shares(all);
  const only = parts.length === 1 && parts[0] ? parts[0] : undefined;
  const summary = only
    ? t("hourAll", { state: segmentWord(only.state) })
    : parts.map((p) => t("hourShare", { state: segmentWord(p.state), minutes: p.ms < 60_000 ? "<1" : Math.round(p.ms / 60_000) })).join(" · ");
  return (
    <div class="hour">
      <div class="hour-head">
        <span class="muted">{t("hour")}</span>
        <span>{summary}</span>
      </div>
      <div class="strip" role="img" aria-label={`${t("hour")}: ${summary}`}>
        {all.map((s, i) => (
          <span
            key={s.from}
            class={`segment ${segmentClass[s.state ?? ""] ?? "unseen"}`}
            style={{ flexGrow: String((s.to - s.from) / hour) }}
            title={span(s, i === all.length - 1)}
          >
            {s.to - s.from > hour / 5 ? <span class="segment-word">{segmentWord(s.state)}</span> : null}
          </span>
        ))}
      </div>
      <div class="hour-axis muted" aria-hidden="true">
        <span>{t("hourAgo")}</span>
        <span>{t("hourNow")}</span>
      </div>
      <details>
        <summary>{t("hourList")}</summary>
        <ul class="plain">
          {all
            .map((s, i) => <li key={s.from}>{span(s, i === all.length - 1)}</li>)
            .reverse()}
        </ul>
      </details>
    </div>
  );
}

/** Cards is how many accelerators are free, as bars in a table. */
function Cards({ location: l, everywhere }: { location: Location; everywhere: Location[] }) {
  return (
    <div class="cards">
      {[...pools(l)].map(([kind, groups]) => {
        const scale = scaleOf(everywhere, kind);
        return (
          <table key={kind} class="pools">
            <caption>{t("cardsKind", { kind: kindWord(kind) })}</caption>
            <thead>
              <tr>
                <th scope="col">{t("cardsGroup")}</th>
                <th scope="col" class="number">
                  {t("cardsFree")}
                </th>
                <th scope="col" class="number">
                  {t("cardsMax")}
                </th>
              </tr>
            </thead>
            <tbody>
              {groups.map((g) => (
                <tr key={`${g.id} ${g.code}`}>
                  <th scope="row">
                    <span class="mono">{g.code || g.id}</span>
                    <span class="bar" aria-hidden="true" title={g.max ? t("cardsFreeOf", { free: g.free, max: g.max }) : t("cardsFreeOnly", { free: g.free })}>
                      <span class={g.free === 0 ? "fill none" : "fill"} style={{ width: `${(100 * g.free) / scale}%` }} />
                      {g.max ? <span class="most" style={{ left: `${(100 * g.max) / scale}%` }} /> : null}
                    </span>
                  </th>
                  <td class="number">{number(g.free)}</td>
                  <td class="number">{g.max === undefined ? common("unknown") : number(g.max)}</td>
                </tr>
              ))}
            </tbody>
          </table>
        );
      })}
    </div>
  );
}
