import { computed } from "@preact/signals";
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { locale } from "../i18n";
import { t } from "../i18n/notebooks";
import { locationStateWord, stateWord } from "../i18n/words";
import { lines, locations, look } from "../live/live";
import type { Arrangement, Head, Row, SortKey } from "../live/store";
import { href } from "../router";
import { StateBadge } from "../ui/badge";
import { Copy } from "../ui/copy";
import { ago, now } from "../ui/time";

const columns: { key: SortKey; word: "state" | "name" | "location" | "image" | "cards" | "cpu" | "owner" | "created" | "expires" }[] = [
  { key: "state", word: "state" },
  { key: "display", word: "name" },
  { key: "location", word: "location" },
  { key: "image", word: "image" },
  { key: "cards", word: "cards" },
  { key: "cpu", word: "cpu" },
  { key: "owner", word: "owner" },
  { key: "created", word: "created" },
  { key: "expires", word: "expires" },
];

const beyond = 16; // lines that are there above and below what is in view

/** Table shows the lines that are in view, of however many. */
export function Table({ arrangement, sort, fold }: { arrangement: Arrangement; sort: (key: SortKey) => void; fold: (head: string) => void }) {
  const scroller = useRef<HTMLDivElement>(null);
  const [view, setView] = useState({ from: 0, to: 60 });
  const [height, setHeight] = useState(lineHeight());
  const all = lines.value;
  const count = all?.lines ?? 0;

  useLayoutEffect(() => {
    const element = scroller.current;
    if (!element) return;
    const measure = () => {
      const line = lineHeight();
      setHeight(line);
      const first = Math.floor(element.scrollTop / line);
      const from = Math.max(0, first - beyond);
      const to = first + Math.ceil(element.clientHeight / line) + beyond;
      // In steps, so that not every pixel asks for other lines.
      setView((v) => (Math.abs(v.from - from) < beyond / 2 && Math.abs(v.to - to) < beyond / 2 && v.from <= first ? v : { from, to }));
    };
    measure();
    const observer = new ResizeObserver(measure);
    observer.observe(element);
    element.addEventListener("scroll", measure, { passive: true });
    return () => {
      observer.disconnect();
      element.removeEventListener("scroll", measure);
    };
  }, []);
  useEffect(() => look(view.from, view.to), [view.from, view.to]);

  const shown = all?.items ?? [];
  return (
    <div class="nb-table" role="table" aria-label={t("table")} aria-rowcount={count + 1} aria-colcount={columns.length}>
      <div role="rowgroup" class="nb-head">
        <div role="row" class="nb-line" aria-rowindex={1}>
          {columns.map(({ key, word }) => (
            <div role="columnheader" key={key} class={`c-${key}`} aria-sort={arrangement.sort === key ? (arrangement.descending ? "descending" : "ascending") : "none"}>
              <button type="button" class="nb-sort" onClick={() => sort(key)}>
                {t(word)}
                <span aria-hidden="true">{arrangement.sort === key ? (arrangement.descending ? "▾" : "▴") : ""}</span>
              </button>
            </div>
          ))}
        </div>
      </div>
      <div role="rowgroup" class="nb-scroll" ref={scroller} tabIndex={0} aria-label={t("table")}>
        <div class="nb-space" role="presentation" style={{ height: `${count * height}px` }}>
          {shown.map((item, i) => {
            const index = (all?.from ?? 0) + i;
            const top = { transform: `translateY(${index * height}px)` };
            return "head" in item ? (
              <HeadLine key={`head ${item.head}`} item={item} index={index} top={top} group={arrangement.group} fold={fold} />
            ) : (
              <RowLine key={item.name} row={item} index={index} top={top} />
            );
          })}
        </div>
      </div>
    </div>
  );
}

function lineHeight(): number {
  return matchMedia("(max-width: 760px)").matches ? 84 : 38;
}

const number = (value: number) => new Intl.NumberFormat(locale(), { maximumFractionDigits: 1 }).format(value);

function HeadLine({ item, index, top, group, fold }: { item: Head; index: number; top: { transform: string }; group: string; fold: (head: string) => void }) {
  const label = item.head === "" ? t("noValue") : group === "state" ? stateWord(item.head) : group === "location" ? item.head.replace(/^clouds\/([^/]+)\/locations\//, "$1 / ") : item.head;
  return (
    <div role="row" class="nb-line nb-group" aria-rowindex={index + 2} style={top}>
      <div role="cell" aria-colspan={columns.length}>
        <button type="button" class="nb-fold" aria-expanded={!item.folded} onClick={() => fold(item.head)}>
          <span aria-hidden="true">{item.folded ? "▸" : "▾"}</span> <strong>{label}</strong>
        </button>
        <span class="muted">
          {t("rows", { count: number(item.count) })}
          {group === "state"
            ? null
            : Object.entries(item.states).map(([state, n]) => ` · ${stateWord(state)} ${number(n ?? 0)}`)}
        </span>
      </div>
    </div>
  );
}

function RowLine({ row, index, top }: { row: Row; index: number; top: { transform: string } }) {
  const id = row.name.slice(row.name.lastIndexOf("/") + 1);
  const place = locations.value.get(`clouds/${row.cloud}/locations/${row.location}`);
  const old = place?.state !== undefined && place.state !== "STATE_LIVE";
  const fresh = row.changed > 0 && Date.now() - row.changed < 2000;
  const oldWords = old ? t("old", { location: `${row.cloud}/${row.location}`, state: locationStateWord(place.state) }) : undefined;
  return (
    <div role="row" class={`nb-line nb-row ${old ? "old" : ""} ${fresh ? "fresh" : ""}`} aria-rowindex={index + 2} style={top} title={oldWords}>
      <div role="cell" class="c-state">
        <StateBadge state={row.state} />
      </div>
      <div role="cell" class="c-display">
        <a href={href(`/${row.name}`)} title={row.name}>
          {row.display}
        </a>
        {row.display === id ? null : <span class="muted mono nb-id">{id}</span>}
        <Copy text={row.name} label={t("copyName")} />
      </div>
      <div role="cell" class="c-location">
        {row.cloud} / {row.location}
        {old ? (
          <span class="nb-old">
            <span aria-hidden="true"> ⚠</span>
            <span class="sr-only">{oldWords}</span>
          </span>
        ) : null}
      </div>
      <div role="cell" class="c-image mono" title={row.image}>
        <span class="nb-cut">{shortImage(row.image)}</span>
        {row.image ? <Copy text={row.image} /> : null}
      </div>
      <div role="cell" class="c-cards">{row.cards > 0 ? `${row.accelerator || "?"} × ${row.cards}` : "–"}</div>
      <div role="cell" class="c-cpu">
        {row.cpu > 0 ? number(row.cpu) : "–"} / {row.memory > 0 ? `${number(row.memory / 2 ** 30)} GiB` : "–"}
      </div>
      <div role="cell" class="c-owner mono" title={row.owner}>
        <span class="nb-cut">{row.owner || "–"}</span>
      </div>
      <div role="cell" class="c-created">{row.created ? ago(Math.min(row.created, tick.value), tick.value) : "–"}</div>
      <div role="cell" class="c-expires">{row.expires ? ago(row.expires, tick.value) : "–"}</div>
    </div>
  );
}

/** The time to ten seconds: ages of rows need not be painted more often. */
const tick = computed(() => Math.floor(now.value / 10_000) * 10_000);

/** shortImage leaves out the registry, which is long and mostly the same. */
export function shortImage(image: string): string {
  const parts = image.split("/");
  return parts.length > 2 ? `…/${parts.slice(-2).join("/")}` : image;
}
