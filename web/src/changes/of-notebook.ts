import { signal, type Signal } from "@preact/signals";
import { listImageChanges } from "../api/client";
import { ApiError } from "../api/errors";
import { quote } from "../api/quote";
import type { ImageChange } from "../api/types";
import { merge } from "./history";

export interface OfNotebook {
  changes: Signal<ImageChange[] | undefined>;
  error: Signal<ApiError | undefined>;
  more: Signal<boolean>;
  load: () => Promise<void>;
}

/** ofNotebook reads the image changes of one notebook, also that which made it, page by page. */
export function ofNotebook(name: string): OfNotebook {
  const changes = signal<ImageChange[] | undefined>(undefined);
  const error = signal<ApiError | undefined>(undefined);
  const more = signal(false);
  let next: string | undefined;
  const load = async () => {
    try {
      const answer = await listImageChanges({
        filter: `notebook = ${quote(name)} OR new_notebook = ${quote(name)}`,
        pageSize: 50,
        ...(next ? { pageToken: next } : {}),
      });
      changes.value = merge(changes.peek() ?? [], answer.imageChanges ?? []);
      next = answer.nextPageToken || undefined;
      more.value = next !== undefined;
      error.value = undefined;
    } catch (cause) {
      if (!(cause instanceof ApiError)) throw cause;
      if (cause.reason === "PAGE_TOKEN_INVALID") next = undefined;
      error.value = cause;
    }
  };
  return { changes, error, more, load };
}

/** Whether a change is about a notebook: it changes it, or it made it. */
export function isAbout(change: ImageChange, name: string): boolean {
  return change.notebook === name || change.newNotebook === name;
}
