import { t } from "../i18n/common";
import { reasonWord } from "../i18n/words";
import { now } from "../ui/time";
import { connection } from "./live";

/** Connection tells that the server is lost, and when it is tried again. */
export function Connection() {
  const state = connection.value;
  if (state.kind !== "lost" && state.kind !== "refused") return <div role="status" class="sr-only" />;
  const seconds = state.kind === "lost" ? Math.ceil((state.retryAt - now.value) / 1000) : 0;
  return (
    <div class="banner" role="status">
      <strong>{state.kind === "lost" ? t("lost") : t("refused")}</strong>
      <span>
        {state.kind === "lost" ? t("lostDetail", { when: seconds > 0 ? t("lostIn", { seconds }) : t("lostNow") }) : reasonWord(state.error.reason)}
      </span>
    </div>
  );
}
