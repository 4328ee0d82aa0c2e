import { computed } from "@preact/signals";
import { useLayoutEffect, useRef, useState } from "preact/hooks";
import { t } from "../i18n/notebooks";
import { locationStateWord, stateWord } from "../i18n/words";
import { filterState, lines, locations, look } from "../live/live";
import { statesOf, type Arrangement, type GroupBy, type Head, type Row, type SortKey } from "../live/store";
import { href } from "../router";
import { StateBadge } from "../ui/badge";
import { Copy } from "../ui/copy";
import { numbers } from "../ui/format";
import { ago, now } from "../ui/time";
import { assign, type Slot } from "./slots";

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

const beyond = 6; // lines that are there above and below what is in view, at least
const step = 3; // lines by which the window moves, so that not every line asks for others

const phone = matchMedia("(max-width: 760px)");
const lineHeight = () => (phone.matches ? 84 : 38);

interface Props {
  arrangement: Arrangement;
  sort: (key: SortKey) => void;
  fold: (head: string) => void;
}

/** Table shows the lines that are in view, of however many. */
export function Table({ arrangement, sort, fold }: Props) {
  return (
    <div class="nb-table" role="table" aria-label={t("table")} aria-rowcount={(rowCount.value ?? 0) + 1} aria-colcount={columns.length} aria-busy={filterState.value.pending}>
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
      <Lines group={arrangement.group} fold={fold} />
    </div>
  );
}

const rowCount = computed(() => lines.value?.lines);

/** Lines scrolls, and asks for the lines that come into view. */
function Lines({ group, fold }: { group: GroupBy; fold: (head: string) => void }) {
  const scroller = useRef<HTMLDivElement>(null);
  const [height, setHeight] = useState(lineHeight);
  const all = lines.value;
  const shown = useRef<Slot[]>([]);

  useLayoutEffect(() => {
    const element = scroller.current;
    if (!element) return;
    let tall = element.clientHeight;
    let asked = "";
    const ask = () => {
      const line = lineHeight();
      const from = Math.max(0, Math.floor((element.scrollTop / line - beyond) / step) * step);
      const to = from + Math.ceil(tall / line) + 2 * beyond + step;
      if (asked === `${from} ${to}`) return;
      asked = `${from} ${to}`;
      look(from, to);
    };
    const measure = () => {
      tall = element.clientHeight;
      setHeight(lineHeight());
      ask();
    };
    measure();
    const observer = new ResizeObserver(measure);
    observer.observe(element);
    element.addEventListener("scroll", ask, { passive: true });
    return () => {
      observer.disconnect();
      element.removeEventListener("scroll", ask);
    };
  }, []);

  const slots = assign(shown.current, all?.from ?? 0, all?.items ?? []);
  leave(scroller.current, shown.current, slots);
  shown.current = slots;
  return (
    <div role="rowgroup" class="nb-scroll" ref={scroller} tabIndex={0} aria-label={t("table")}>
      <div class="nb-space" role="presentation" style={{ height: `${(all?.lines ?? 0) * height}px` }}>
        <div class="nb-lines" role="presentation" style={{ transform: `translateY(${(all?.from ?? 0) * height}px)` }}>
          {slots.map(({ id, item, index }) =>
            "head" in item ? <HeadLine key={`head ${id}`} item={item} index={index} group={group} fold={fold} /> : <RowLine key={id} slot={id} row={item} index={index} />,
          )}
        </div>
      </div>
    </div>
  );
}

/** leave takes the focus out of a row whose slot will show another notebook: whoever presses a key means the one that was there. */
function leave(scroller: HTMLElement | null, before: Slot[], after: Slot[]): void {
  const row = document.activeElement?.closest<HTMLElement>(".nb-lines > .nb-row");
  if (!row || !scroller) return;
  const id = Number(row.dataset["slot"]);
  const name = (slots: Slot[]) => slots.map((s) => (s.id === id && !("head" in s.item) ? s.item.name : "")).join("");
  if (name(before) !== name(after)) scroller.focus({ preventScroll: true });
}

const number = (value: number) => numbers().format(value);

// Both read signals, and are therefore painted anew only when one of these or a property
// is another: slots keep the items of lines that stay as they are.

function HeadLine({ item, index, group, fold }: { item: Head; index: number; group: GroupBy; fold: (head: string) => void }) {
  const label = item.head === "" ? t("noValue") : group === "state" ? stateWord(item.head) : group === "location" ? item.head.replace(/^clouds\/([^/]+)\/locations\//, "$1 / ") : item.head;
  return (
    <div role="row" class="nb-line nb-group" aria-rowindex={index + 2}>
      <div role="cell" aria-colspan={columns.length}>
        <button type="button" class="nb-fold" aria-expanded={!item.folded} onClick={() => fold(item.head)}>
          <span aria-hidden="true">{item.folded ? "▸" : "▾"}</span> <strong>{label}</strong>
        </button>
        <span class="muted">
          {t("rows", { count: number(item.count) })}
          {group === "state" ? null : statesOf(item.states).map(([state, n]) => ` · ${stateWord(state)} ${number(n)}`)}
        </span>
      </div>
    </div>
  );
}

/** The states of locations that are not live, as text, so that rows are painted anew only when one changes. */
const notLive = computed(() => {
  const old: Record<string, string> = {};
  for (const { name, state } of locations.value.values()) if (state !== undefined && state !== "STATE_LIVE") old[name] = state;
  return JSON.stringify(old);
});
const oldLocations = computed(() => JSON.parse(notLive.value) as Record<string, string>);

function RowLine({ row, slot, index }: { row: Row; slot: number; index: number }) {
  const id = row.name.slice(row.name.lastIndexOf("/") + 1);
  const old = oldLocations.value[`clouds/${row.cloud}/locations/${row.location}`];
  const oldWords = old ? t("old", { location: `${row.cloud}/${row.location}`, state: locationStateWord(old) }) : undefined;
  const fresh = row.changed > 0 && Date.now() - row.changed < 2000;
  return (
    <div role="row" class={`nb-line nb-row${old ? " old" : ""}${fresh ? ` fresh${row.revision % 2}` : ""}`} data-slot={slot} aria-rowindex={index + 2} title={oldWords}>
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
      <div role="cell" class="c-cpu">{`${row.cpu > 0 ? number(row.cpu) : "–"} / ${row.memory > 0 ? `${number(row.memory / 2 ** 30)} GiB` : "–"}`}</div>
      <div role="cell" class="c-owner mono" title={row.owner}>
        {row.owner || "–"}
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
