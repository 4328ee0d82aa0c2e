import { useEffect, useId, useRef, useState } from "preact/hooks";
import { characterAt, positionOf } from "../changes/history";
import { t as common } from "../i18n/common";
import { t } from "../i18n/notebooks";
import { langOf, said } from "../i18n/sentences";
import { reasonWord } from "../i18n/words";
import { filterState, valuesOf } from "../live/live";
import { place, setParams } from "../router";
import { and, proposals, type Proposals } from "./complete";

const nothing: Proposals = { from: 0, options: [] };

/** Filter is where the filter of the table is typed, with proposals. */
export function Filter() {
  const applied = place.value.params.get("filter") ?? "";
  const [text, setText] = useState(applied);
  const [offer, setOffer] = useState<Proposals>(nothing);
  const [active, setActive] = useState(-1);
  const input = useRef<HTMLInputElement>(null);
  const id = useId();
  const asked = useRef(0);
  useEffect(() => setText(applied), [applied]);

  const close = () => {
    asked.current++;
    setOffer(nothing);
    setActive(-1);
  };
  const propose = async (value: string, caret: number) => {
    const mine = ++asked.current;
    const found = await proposals(value, caret, valuesOf);
    if (mine !== asked.current) return;
    setOffer(found);
    setActive(-1);
  };
  const apply = (filter: string) => {
    close();
    setText(filter);
    setParams({ filter: filter.trim() || undefined }, true);
  };
  const choose = (option: string) => {
    const caret = input.current?.selectionStart ?? text.length;
    const next = `${text.slice(0, offer.from)}${option} ${text.slice(caret).replace(/^\s+/, "")}`;
    const at = offer.from + option.length + 1;
    setText(next);
    requestAnimationFrame(() => {
      input.current?.focus();
      input.current?.setSelectionRange(at, at);
    });
    void propose(next, at);
  };
  const onKeyDown = (e: KeyboardEvent) => {
    const { options } = offer;
    if (e.isComposing) return;
    if (e.key === "ArrowDown" || e.key === "ArrowUp") {
      e.preventDefault();
      if (options.length === 0) void propose(text, input.current?.selectionStart ?? text.length);
      else setActive((active + (e.key === "ArrowDown" ? 1 : active < 0 ? 0 : -1) + options.length) % options.length);
    } else if (e.key === "Escape") {
      e.preventDefault();
      close();
    } else if (e.key === "Enter" || (e.key === "Tab" && active >= 0)) {
      e.preventDefault();
      const option = options[active];
      if (option !== undefined) choose(option);
      else apply(text);
    }
  };

  const { error } = filterState.value;
  const problem = error?.problemOf("filter");
  const bytes = problem === undefined ? undefined : positionOf(problem);
  const at = bytes === undefined ? undefined : characterAt(applied, bytes);
  const fault = (problem ?? error?.message ?? "").replace(/^at position \d+: /, ""); // which is shown otherwise
  const day = new Date(Date.now() + 86_400_000).toISOString().slice(0, 16) + ":00Z";
  const chips: [string, string][] = [
    [t("chipRunning"), "state = RUNNING"],
    [t("chipCards"), "resources.accelerator.count >= 1"],
    [t("chipExpiring"), `expire_time < ${day}`],
    [t("chipFailed"), "state = FAILED"],
  ];
  return (
    <form
      class="nb-filter"
      role="search"
      onSubmit={(e) => {
        e.preventDefault();
        apply(text);
      }}
    >
      <label for={`${id}-input`}>{t("filter")}</label>
      <div class="nb-filter-row">
        <div class="nb-combo">
          <input
            ref={input}
            id={`${id}-input`}
            type="text"
            class="mono"
            role="combobox"
            aria-autocomplete="list"
            aria-expanded={offer.options.length > 0}
            aria-controls={`${id}-list`}
            aria-activedescendant={active >= 0 ? `${id}-${active}` : undefined}
            aria-invalid={error !== undefined}
            aria-describedby={error ? `${id}-fault` : undefined}
            placeholder={t("filterHint")}
            title={t("filterHelp")}
            autocomplete="off"
            autocapitalize="off"
            spellcheck={false}
            value={text}
            onInput={(e) => {
              const { value, selectionStart } = e.currentTarget;
              setText(value);
              void propose(value, selectionStart ?? value.length);
            }}
            onKeyDown={onKeyDown}
            onBlur={close}
          />
          <ul id={`${id}-list`} role="listbox" aria-label={t("proposals")} hidden={offer.options.length === 0}>
            {offer.options.map((option, i) => (
              <li
                key={option}
                id={`${id}-${i}`}
                role="option"
                aria-selected={i === active}
                class="mono"
                onMouseDown={(e) => {
                  e.preventDefault(); // the field keeps the focus
                  choose(option);
                }}
              >
                {option}
              </li>
            ))}
          </ul>
        </div>
        <button type="submit">{t("apply")}</button>
        {applied || text ? (
          <button type="button" onClick={() => apply("")}>
            {t("clear")}
          </button>
        ) : null}
      </div>
      {error ? (
        <div class="nb-fault" id={`${id}-fault`} role="alert">
          <p>
            {reasonWord(error.reason)}
            {at === undefined ? null : `${common("gap")}${common("brackets", { text: t("faultAt", { position: at + 1 }) })}`}
          </p>
          {at === undefined ? null : (
            <p class="mono">
              {applied.slice(0, at)}
              <mark>{applied.slice(at, at + 1) || "⏎"}</mark>
              {applied.slice(at + 1)}
            </p>
          )}
          <p lang={langOf(fault)}>{said(fault)}</p>
        </div>
      ) : null}
      <div class="chips" role="group" aria-label={t("chips")}>
        {chips.map(([label, term]) => (
          <button key={label} type="button" class="chip" onClick={() => apply(and(applied, term))}>
            {label}
          </button>
        ))}
      </div>
    </form>
  );
}
