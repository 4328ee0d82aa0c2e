import { useState } from "preact/hooks";
import { t } from "../i18n/common";

/** Copy is a button that copies a text. */
export function Copy({ text, label }: { text: string; label?: string }) {
  const [copied, setCopied] = useState(false);
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
    setCopied(true);
    setTimeout(() => setCopied(false), 1500);
  };
  return (
    <button type="button" class="copy" onClick={copy} title={label ?? t("copy")} aria-label={`${label ?? t("copy")}: ${text}`}>
      <span aria-hidden="true">{copied ? "✓" : "⧉"}</span>
      <span class="sr-only" role="status">
        {copied ? t("copied") : ""}
      </span>
    </button>
  );
}
