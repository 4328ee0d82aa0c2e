import { ApiError } from "../api/errors";
import { t } from "../i18n/common";
import { reasonWord } from "../i18n/words";
import { Said } from "./said";

/** Problem tells an error in words: what happened, what to do, and what the server said. */
export function Problem({ error, retry }: { error: ApiError; retry?: () => void }) {
  return (
    <div class="problem" role="alert">
      <p>
        <strong>{reasonWord(error.reason)}</strong>
      </p>
      {error.message && error.reason !== "SERVER_LOST" ? (
        <p class="detail">
          <code>{error.reason}</code> <Said text={error.message} />
        </p>
      ) : null}
      {retry ? (
        <button type="button" onClick={retry}>
          {t("retry")}
        </button>
      ) : null}
    </div>
  );
}
