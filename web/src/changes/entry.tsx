import type { ImageChange } from "../api/types";
import { mayOperate } from "../api/session";
import { t as common } from "../i18n/common";
import { t } from "../i18n/history";
import { reasonWord } from "../i18n/words";
import { href } from "../router";
import { PhaseBadge } from "../ui/badge";
import { Copy } from "../ui/copy";
import { duration } from "../ui/duration";
import { Said } from "../ui/said";
import { ago, clockTime, now } from "../ui/time";
import { backOf, repeatOf, type Target } from "./history";
import { hasEnded, notebookOf, tookOf } from "./phases";
import "./entry.css";

/** The last part of an image's reference, by which people tell images apart. */
export const shortImage = (image: string | undefined): string => image?.split("/").at(-1) ?? "";

const idOf = (name: string) => name.split("/").at(-1) ?? name;

export function linkTo(target: Target): string {
  return href(`/${target.notebook}/change`, { image: target.image, type: target.type });
}

/** Entry is one image change: who, when, from which image to which, why, and what became of it. */
export function Entry({ change: c, all, ofOne = false }: { change: ImageChange; all: readonly ImageChange[]; ofOne?: boolean }) {
  const ended = hasEnded(c);
  const took = tookOf(c, now.value);
  const notebook = notebookOf(c);
  const may = mayOperate(notebook);
  const repeat = may && ended ? repeatOf(c) : undefined;
  const back = may ? backOf(c, all) : undefined;
  return (
    <article class={ofOne ? "change-entry of-one" : "change-entry"}>
      <div class="result">
        <PhaseBadge phase={c.phase} />
      </div>
      <div class="images">
        <span class="sr-only">{t("from")} </span>
        <span class="mono" title={c.fromImage}>
          {shortImage(c.fromImage) || t("noImage")}
        </span>{" "}
        <span aria-hidden="true" class="muted arrow">
          →
        </span>
        <span class="sr-only"> {t("to")} </span>
        <span class="mono to" title={c.toImage}>
          {shortImage(c.toImage)}
        </span>
        {c.reason ? (
          <p class="why">
            <span class="sr-only">
              {t("why")}
              {common("colon")}
            </span>
            “{c.reason}”
          </p>
        ) : null}
        {c.failure ? (
          <p class="failure">
            {reasonWord(c.failure.reason)}
            {c.failure.message ? <> <Said text={c.failure.message} /></> : null}
            {c.failure.cloudCode ? <span> {common("brackets", { text: `${t("cloudCode")} ${c.failure.cloudCode}` })}</span> : null}
          </p>
        ) : null}
      </div>
      {ofOne ? null : (
        <div class="notebook">
          <a href={href(`/${notebook}`)} class="mono" title={notebook}>
            {idOf(notebook)}
          </a>
          <span class="muted">
            {notebook.split("/")[1]} / {notebook.split("/")[3]}
          </span>
        </div>
      )}
      <div class="who">
        <span class="sr-only">{t("by")} </span>
        {c.principal}
      </div>
      <div class="when">
        <time dateTime={c.createTime} title={clockTime(c.createTime)}>
          {ago(c.createTime)}
        </time>
        {took === undefined ? null : <span class="muted">{t(ended ? "took" : "running", { duration: duration(took) })}</span>}
      </div>
      <div class="more">
        <details>
          <summary>{t("details")}</summary>
          <Details change={c} />
        </details>
        {repeat ? (
          <a class="action" href={linkTo(repeat)} aria-label={t("repeatOf", { image: shortImage(repeat.image), notebook: idOf(notebook) })}>
            {t("repeat")}
          </a>
        ) : null}
        {back ? (
          <a class="action" href={linkTo(back)} aria-label={t("backOf", { image: shortImage(back.image), notebook: idOf(notebook) })}>
            {t("back")}
          </a>
        ) : null}
      </div>
    </article>
  );
}

function Details({ change: c }: { change: ImageChange }) {
  return (
    <dl class="change-details">
      <dt>{t("from")}</dt>
      <dd class="mono">{c.fromImage || t("noImage")}</dd>
      <dt>{t("to")}</dt>
      <dd>
        <span class="mono">{c.toImage}</span> {c.toImage ? <Copy text={c.toImage} /> : null}
      </dd>
      {c.imageType ? (
        <>
          <dt>{t("imageType")}</dt>
          <dd>{c.imageType}</dd>
        </>
      ) : null}
      {c.newNotebook ? (
        <>
          <dt>{t("newNotebook")}</dt>
          <dd>
            <a class="mono" href={href(`/${c.newNotebook}`)}>
              {c.newNotebook}
            </a>
          </dd>
        </>
      ) : null}
      <dt>{t("asked")}</dt>
      <dd>{clockTime(c.createTime)}</dd>
      {c.updateTime ? (
        <>
          <dt>{t(hasEnded(c) ? "ended" : "lastStep")}</dt>
          <dd>{clockTime(c.updateTime)}</dd>
        </>
      ) : null}
      {c.steps?.length ? (
        <>
          <dt>{t("steps")}</dt>
          <dd>
            <ol>
              {c.steps.map((s) => (
                <li key={s}>
                  <Said text={s} />
                </li>
              ))}
            </ol>
          </dd>
        </>
      ) : null}
      {c.acknowledged?.length ? (
        <>
          <dt>{t("accepted")}</dt>
          <dd>
            <ul>
              {c.acknowledged.map((code) => (
                <li key={code}>
                  <Said text={c.warnings?.find((w) => w.code === code)?.message ?? code} />
                </li>
              ))}
            </ul>
          </dd>
        </>
      ) : null}
      {c.cloudRequestId ? (
        <>
          <dt>{t("cloudRequest")}</dt>
          <dd>
            <span class="mono">{c.cloudRequestId}</span> <Copy text={c.cloudRequestId} />
          </dd>
        </>
      ) : null}
      {c.requestId ? (
        <>
          <dt>{t("request")}</dt>
          <dd class="mono">{c.requestId}</dd>
        </>
      ) : null}
      <dt>{t("record")}</dt>
      <dd>
        <span class="mono">{c.name}</span> {c.name ? <Copy text={c.name} /> : null}
        <br />
        {t(c.sent ? "sentYes" : "sentNo")}
      </dd>
    </dl>
  );
}
