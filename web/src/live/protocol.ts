// What the page and its worker say to each other.

import type { Status } from "../api/errors";
import type { ImageChange, Location } from "../api/types";
import type { Arrangement, Window } from "./store";

/** An error on its way: of an Error only the text would arrive. */
export interface SentError {
  http: number;
  status: Status;
}

export type SentState =
  | { kind: "connecting" }
  | { kind: "open" }
  | { kind: "lost"; error: SentError; retryAt: number }
  | { kind: "refused"; error: SentError };

/** From the page. */
export type Request =
  /** Watch with a filter; what is watched goes on until the server has taken the filter. */
  | { kind: "watch"; filter: string; token: string | undefined }
  | { kind: "stop" }
  | { kind: "token"; token: string | undefined }
  | { kind: "arrange"; arrangement: Arrangement }
  | { kind: "window"; from: number; to: number }
  | { kind: "values"; id: number; field: string; prefix: string };

/** From the worker. */
export type Report =
  | { kind: "state"; state: SentState }
  /** The filter was taken, or refused. */
  | { kind: "filter"; filter: string; error: SentError | undefined }
  | { kind: "window"; window: Window }
  | { kind: "told"; locations: Location[]; imageChanges: ImageChange[] }
  | { kind: "values"; id: number; values: string[] };
