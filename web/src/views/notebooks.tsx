import { Fragment } from "preact";
import { useEffect, useLayoutEffect, useState } from "preact/hooks";
import type { Cloud, Location } from "../api/types";
import { t as common } from "../i18n/common";
import { t } from "../i18n/notebooks";
import { reasonWord, stateWord } from "../i18n/words";
import { arrange, clouds, cloudsError, connection, filterState, lines, locations, readClouds, setFilter } from "../live/live";
import { groupings, sortKeys, statesOf, type Arrangement, type GroupBy, type SortKey } from "../live/store";
import { Filter } from "../notebooks/filter";
import { and } from "../notebooks/complete";
import { places } from "../notebooks/strip";
import { Table } from "../notebooks/table";
import { place, setParams } from "../router";
import { LocationBadge } from "../ui/badge";
import { numbers } from "../ui/format";
import { ago } from "../ui/time";
import "./notebooks.css";

const groupWords = {
  "": "groupNone",
  cloud: "groupCloud",
  location: "groupLocation",
  state: "groupState",
  image: "groupImage",
  owner: "groupOwner",
  accelerator: "groupAccelerator",
} as const;

const sortWords = {
  name: "name",
  display: "name",
  state: "state",
  location: "location",
  image: "image",
  cards: "cards",
  cpu: "cpu",
  owner: "owner",
  created: "created",
  expires: "expires",
} as const;

/** NotebooksView is the live table of all notebooks, or of those that match. */
export function NotebooksView() {
  const { params } = place.value;
  const filter = params.get("filter") ?? "";
  const group = groupings.find((g) => g === params.get("group")) ?? "";
  const sortParam = params.get("sort") ?? "";
  const descending = sortParam.startsWith("-");
  const sort = sortKeys.find((k) => k === sortParam.replace(/^-/, "")) ?? "name";
  const [folded, setFolded] = useState<string[]>([]);
  // Before anything is painted: what is there is not of this filter.
  useLayoutEffect(() => setFilter(filter), [filter]);
  useEffect(() => setFolded([]), [group]);
  const arrangement: Arrangement = { group, sort, descending, folded };
  useEffect(() => arrange(arrangement), [group, sort, descending, folded]);

  const sortBy = (key: SortKey) => setParams({ sort: key === sort ? (descending ? undefined : `-${key}`) : key });
  const fold = (head: string) => setFolded((f) => (f.includes(head) ? f.filter((h) => h !== head) : [...f, head]));
  return (
    <div class="nb">
      <h1>{t("title")}</h1>
      <Strip />
      <Filter />
      <div class="nb-tools">
        <label>
          {t("groupBy")}{" "}
          <select value={group} onChange={(e) => setParams({ group: e.currentTarget.value || undefined }, true)}>
            {groupings.map((g: GroupBy) => (
              <option key={g} value={g}>
                {t(groupWords[g])}
              </option>
            ))}
          </select>
        </label>
        <label class="nb-phone">
          {t("sortBy")}{" "}
          <select value={sort === "name" ? "display" : sort} onChange={(e) => setParams({ sort: `${descending ? "-" : ""}${e.currentTarget.value}` })}>
            {sortKeys
              .filter((k) => k !== "name")
              .map((k) => (
                <option key={k} value={k}>
                  {t(sortWords[k])}
                </option>
              ))}
          </select>
        </label>
        <label class="nb-phone">
          <input type="checkbox" checked={descending} onChange={(e) => setParams({ sort: `${e.currentTarget.checked ? "-" : ""}${sort}` })} /> {t("descending")}
        </label>
        <Sums filtered={filter !== ""} />
      </div>
      <Empty filtered={filter !== ""} />
      <Table arrangement={arrangement} sort={sortBy} fold={fold} />
    </div>
  );
}

const number = (value: number) => numbers().format(value);

function Sums({ filtered }: { filtered: boolean }) {
  const all = lines.value;
  if (!all) return <p class="nb-sums muted">{common("loading")}</p>;
  return (
    <p class="nb-sums" data-complete={all.complete && !filterState.value.pending}>
      <strong>{t(!all.complete ? "loadingMore" : filtered && !filterState.value.error ? "matching" : "total", { count: number(all.total) })}</strong>
      <span class="muted">
        {statesOf(all.states)
          .map(([state, count]) => `${stateWord(state)} ${number(count)}`)
          .join(" · ")}
      </span>
    </p>
  );
}

function Empty({ filtered }: { filtered: boolean }) {
  const all = lines.value;
  if (!all?.complete || all.total > 0) return null;
  const known = [...locations.value.values()].some((l) => l.lastSuccessTime);
  return <p class="card">{t(filtered ? "noMatch" : known ? "none" : "notKnown")}</p>;
}

/** Strip tells how old what is shown is, location by location. */
function Strip() {
  return (
    <section class="nb-strip" aria-label={t("locations")}>
      {cloudsError.value && connection.value.kind === "open" ? <Unread why={reasonWord(cloudsError.value.reason)} /> : null}
      {places(clouds.value, locations.value).map(({ cloud, locations: all }) => (
        <Fragment key={cloud.name}>
          {cloud.reason ? <Broken cloud={cloud} /> : null}
          {all.map((l) => (
            <Place key={l.name} location={l} />
          ))}
        </Fragment>
      ))}
    </section>
  );
}

/** Unread tells that the clouds cannot be read, though the watch goes on. */
function Unread({ why }: { why: string }) {
  return (
    <div class="nb-place bad" role="status">
      <span>
        <strong>{t("unread")}</strong> {why}
      </span>
      <button type="button" onClick={() => void readClouds()}>
        {common("retry")}
      </button>
    </div>
  );
}

function Broken({ cloud }: { cloud: Cloud }) {
  return (
    <p class="nb-place bad">
      <strong>{cloud.name.replace("clouds/", "")}</strong> {reasonWord(cloud.reason)}
    </p>
  );
}

function Place({ location }: { location: Location }) {
  const [, cloud = "", , id = ""] = location.name.split("/");
  const label = `${cloud} / ${id}`;
  return (
    <button type="button" class="nb-place" title={t("onlyLocation", { location: label })} onClick={() => setParams({ filter: and(and(place.value.params.get("filter") ?? "", `cloud = ${cloud}`), `location = ${id}`) }, true)}>
      <span>
        <strong>{label}</strong> <span class="muted">{location.displayName}</span>
      </span>
      <span class="nb-place-state">
        <LocationBadge state={location.state} />
        <span class="muted">
          {location.lastSuccessTime ? t("read", { ago: ago(location.lastSuccessTime) }) : t("neverRead")} · {t("rows", { count: number(location.notebookCount ?? 0) })}
        </span>
      </span>
      {location.state !== "STATE_LIVE" && location.reason ? <span class="nb-why">{reasonWord(location.reason)}</span> : null}
    </button>
  );
}
