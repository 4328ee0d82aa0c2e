import { useState } from "preact/hooks";
import { t } from "../i18n/common";

/** One region that is read out, for all the buttons, of which there may be many. */
let status: HTMLElement | undefined;

function readOut(words: string): void {
  if (!status) {
    status = document.createElement("div");
    status.className = "sr-only";
    status.role = "status";
    document.body.append(status);
  }
  // What is put into a region as it appears is not always read.
  const region = status;
  setTimeout(() => (region.textContent = words), 50);
}

/** Copy is a button that copies a text. With shown its label can be seen. */
export function Copy({ text, label, shown = false }: { text: string; label?: string; shown?: boolean }) {
  // The text, since the button may be given another one meanwhile.
  const [done, setDone] = useState<string>();
  const copied = done === text;
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      // A page over plain HTTP has no clipboard; the old way works there.
      const area = document.createElement("textarea");
      area.value = text;
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    setDone(text);
    readOut(t("copied"));
    setTimeout(() => {
      setDone(undefined);
      readOut("");
    }, 1500);
  };
  return (
    <button type="button" class={shown ? "" : "copy"} onClick={copy} title={label ?? t("copy")} aria-label={`${label ?? t("copy")}${t("colon")}${text}`}>
      {copied ? (
        <span aria-hidden="true">✓</span>
      ) : (
        <svg width="14" height="14" viewBox="0 0 16 16" fill="none" stroke="currentColor" stroke-width="1.5" aria-hidden="true">
          <rect x="5.5" y="5.5" width="8" height="8" rx="1.5" />
          <path d="M10.5 3.5v-.5A1.5 1.5 0 0 0 9 1.5H3A1.5 1.5 0 0 0 1.5 3v6A1.5 1.5 0 0 0 3 10.5h.5" />
        </svg>
      )}
      {shown ? <span aria-hidden="true">{label}</span> : null}
    </button>
  );
}
