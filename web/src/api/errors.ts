// google.rpc.Status as the gateway sends it, and what else can go wrong on the way.

import { knownReasons } from "./reasons";

export interface Status {
  code?: number;
  message?: string;
  details?: {
    "@type"?: string;
    reason?: string;
    domain?: string;
    metadata?: Record<string, string>;
    retryDelay?: string;
    fieldViolations?: { field?: string; description?: string }[];
    violations?: { type?: string; subject?: string; description?: string }[];
  }[];
}

/** The domain of every ErrorInfo of notebookd. */
const domain = "notebookd";

/** ApiError is a refusal of the server, or SERVER_LOST when the server did not answer. */
export class ApiError extends Error {
  /**
   * A name of ErrorReason without its prefix, or SERVER_LOST: there was no answer, or it
   * is one of whoever stands between, such as the page of a proxy.
   */
  readonly reason: string;
  /** Whether notebookd itself said so, in a way that this console understands. */
  readonly own: boolean;
  /** The HTTP status; 0 when there was no answer. */
  readonly http: number;
  /** What the server sent. */
  readonly status: Status;
  readonly metadata: Record<string, string>;
  /** When to try again, in milliseconds, if the server said so. */
  readonly retryAfter: number | undefined;
  readonly fields: { field: string; problem: string }[];
  /** Codes that have to be acknowledged, with what they mean. */
  readonly missing: { code: string; message: string }[];

  constructor(http: number, status: Status) {
    super(typeof status.message === "string" ? status.message : "");
    this.name = "ApiError";
    this.http = http;
    this.status = status;
    const all = Array.isArray(status.details) ? status.details.filter((d) => typeof d === "object" && d !== null) : [];
    const info = all.find((d) => String(d["@type"]).endsWith("google.rpc.ErrorInfo") && d.domain === domain);
    this.reason = info?.reason || "SERVER_LOST";
    this.own = (knownReasons as readonly string[]).includes(this.reason);
    const details = info ? all : []; // those of others may have any form
    this.metadata = info?.metadata ?? {};
    const retry = details.find((d) => d.retryDelay)?.retryDelay;
    this.retryAfter = retry ? parseDuration(retry) : undefined;
    this.fields = (details.find((d) => d.fieldViolations)?.fieldViolations ?? []).map((v) => ({
      field: v.field ?? "",
      problem: v.description ?? "",
    }));
    this.missing = (details.find((d) => d.violations)?.violations ?? []).map((v) => ({
      code: v.type ?? "",
      message: v.description ?? "",
    }));
  }

  /** What is wrong with a field, if that is the problem. */
  problemOf(field: string): string | undefined {
    return this.fields.find((f) => f.field === field)?.problem;
  }
}

export function lost(cause?: unknown): ApiError {
  return new ApiError(0, { message: cause instanceof Error ? cause.message : "" });
}

export async function errorOf(response: Response): Promise<ApiError> {
  let status: Status = {};
  try {
    const read: unknown = await response.json();
    if (typeof read === "object" && read !== null) status = read;
  } catch {
    // A proxy's page, or the connection broke: the HTTP status says enough.
  }
  return new ApiError(response.status, status);
}

/** errorOfStatus is the error that a stream has ended with. */
export function errorOfStatus(text: string): ApiError {
  try {
    return new ApiError(200, JSON.parse(text) as Status);
  } catch {
    return lost();
  }
}

/** parseDuration reads a google.protobuf.Duration ("1.5s"), in milliseconds. */
export function parseDuration(text: string): number {
  return Number.parseFloat(text) * 1000;
}
