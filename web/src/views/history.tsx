import { useEffect, useRef, useState } from "preact/hooks";
import { listImageChanges } from "../api/client";
import { ApiError } from "../api/errors";
import { caller, consoleConfig } from "../api/session";
import type { ImageChange } from "../api/types";
import { Entry } from "../changes/entry";
import { characterAt, chips, filterOf, merge, parseChips, positionOf, type Chip } from "../changes/history";
import { t as common } from "../i18n/common";
import { t } from "../i18n/history";
import { imageChanges } from "../live/live";
import { place, setParams } from "../router";
import { Problem } from "../ui/problem";
import { Said } from "../ui/said";
import "./history.css";

const pageSize = 50;

interface Loaded {
  /** What it was asked with. */
  filter: string;
  changes: ImageChange[];
  next: string | undefined;
}

/** HistoryView lists image changes, newest first, and keeps them up to date. */
export function HistoryView() {
  const { params } = place.value;
  const typed = params.get("filter") ?? "";
  const on = parseChips(params.get("only"));
  const subject = caller.value?.subject;
  const wanted = `${typed} ${[...on].join()} ${subject ?? ""}`;
  const [loaded, setLoaded] = useState<Loaded>();
  const [error, setError] = useState<ApiError>();
  const [busy, setBusy] = useState(false);
  const attempt = useRef(0);

  async function load(more?: Loaded) {
    const mine = ++attempt.current;
    setBusy(true);
    try {
      const filter = more?.filter ?? filterOf(typed, on, subject, Date.now());
      const answer = await listImageChanges({ filter, pageSize, ...(more?.next ? { pageToken: more.next } : {}) });
      if (mine !== attempt.current) return;
      setLoaded({ filter, changes: merge(more?.changes ?? [], answer.imageChanges ?? []), next: answer.nextPageToken || undefined });
      setError(undefined);
    } catch (cause) {
      if (mine !== attempt.current || !(cause instanceof ApiError)) return;
      if (cause.reason === "PAGE_TOKEN_INVALID" && more) return await load();
      setError(cause);
    } finally {
      if (mine === attempt.current) setBusy(false);
    }
  }

  useEffect(() => void load(), [wanted]);

  // Whether a new change matches a filter is for the server to say, so the first page is asked for again.
  const live = imageChanges.value;
  const fresh = loaded ? [...live.values()].filter((c) => !loaded.changes.some((l) => l.name === c.name)) : [];
  const news = fresh.map((c) => c.name).join();
  const filtered = (loaded?.filter ?? "") !== "";
  useEffect(() => {
    if (!filtered || news === "") return;
    const timer = setTimeout(async () => {
      try {
        const answer = await listImageChanges({ filter: loaded?.filter ?? "", pageSize });
        setLoaded((l) => l && { ...l, changes: merge(l.changes, answer.imageChanges ?? []) });
      } catch {
        // The list stays as it is; the next change tries again.
      }
    }, 500);
    return () => clearTimeout(timer);
  }, [news, filtered]);

  const shown = loaded ? merge(loaded.changes, filtered ? loaded.changes.flatMap((c) => live.get(c.name ?? "") ?? []) : live.values()) : [];
  const authenticated = consoleConfig.value?.auth.required;

  return (
    <div class="history">
      <h1>{t("title")}</h1>
      <FilterForm key={typed} typed={typed} error={error?.reason === "FILTER_INVALID" ? error : undefined} />
      <div class="chips" role="group" aria-label={t("chips")}>
        {chips
          .filter((c) => c !== "mine" || subject !== undefined)
          .map((c) => (
            <button key={c} type="button" class="chip" aria-pressed={on.has(c)} title={c === "mine" && !authenticated ? subject : undefined} onClick={() => toggle(on, c)}>
              {t(`chip_${c}`)}
            </button>
          ))}
      </div>
      {error && error.reason !== "FILTER_INVALID" ? <Problem error={error} retry={() => void load()} /> : null}
      {!loaded && !error ? <p role="status">{common("loading")}</p> : null}
      {loaded ? (
        <>
          <p class="muted count" role="status">
            {shown.length === 0 ? t(filtered ? "emptyFilter" : "empty") : t(loaded.next ? "shownMore" : "shown", { count: shown.length })}
          </p>
          {shown.length > 0 ? (
            <ol class="entries card" aria-label={t("list")}>
              {shown.map((c) => (
                <li key={c.name}>
                  <Entry change={c} all={shown} />
                </li>
              ))}
            </ol>
          ) : null}
          {loaded.next ? (
            <button type="button" class="load-more" disabled={busy} onClick={() => void load(loaded)}>
              {busy ? common("loading") : t("more")}
            </button>
          ) : null}
        </>
      ) : null}
    </div>
  );
}

function toggle(on: Set<Chip>, chip: Chip): void {
  const next = new Set(on);
  if (!next.delete(chip)) next.add(chip);
  setParams({ only: chips.filter((c) => next.has(c)).join(",") || undefined });
}


function FilterForm({ typed, error }: { typed: string; error: ApiError | undefined }) {
  const [text, setText] = useState(typed);
  const problem = error?.problemOf("filter") ?? error?.message;
  const bytes = problem === undefined ? undefined : positionOf(problem);
  const at = bytes === undefined ? undefined : characterAt(typed, bytes);
  const input = useRef<HTMLInputElement>(null);
  useEffect(() => {
    if (at !== undefined) {
      input.current?.focus();
      input.current?.setSelectionRange(at, Math.max(at, typed.length));
    }
  }, [at, problem]);
  return (
    <form
      role="search"
      onSubmit={(e) => {
        e.preventDefault();
        setParams({ filter: text.trim() || undefined }, true);
      }}
    >
      <label for="history-filter">{t("filter")}</label>
      <div class="filter-row">
        <input
          id="history-filter"
          ref={input}
          type="search"
          class="mono"
          value={text}
          spellcheck={false}
          autocomplete="off"
          aria-describedby={problem ? "history-filter-hint history-filter-fault" : "history-filter-hint"}
          aria-invalid={problem ? "true" : undefined}
          onInput={(e) => setText(e.currentTarget.value)}
        />
        <button type="submit">{t("apply")}</button>
        {typed ? (
          <button type="button" onClick={() => setParams({ filter: undefined }, true)}>
            {t("clear")}
          </button>
        ) : null}
      </div>
      <span id="history-filter-hint" class="muted small-hint">
        {t("filterHint")}
      </span>
      {problem ? (
        <p id="history-filter-fault" class="filter-fault" role="alert">
          {at === undefined ? "" : t("faultAt", { at: at + 1 }) + common("gap")}
          <Said text={problem.replace(/^(filter: )?at position \d+: /, "")} />
        </p>
      ) : null}
    </form>
  );
}
