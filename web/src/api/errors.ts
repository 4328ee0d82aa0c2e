// google.rpc.Status as the gateway sends it, and what else can go wrong on the way.

export interface Status {
  code?: number;
  message?: string;
  details?: {
    "@type"?: string;
    reason?: string;
    metadata?: Record<string, string>;
    retryDelay?: string;
    fieldViolations?: { field?: string; description?: string }[];
    violations?: { type?: string; subject?: string; description?: string }[];
  }[];
}

/** ApiError is a refusal of the server, or SERVER_LOST when there was no answer. */
export class ApiError extends Error {
  /** A name of ErrorReason without its prefix, or SERVER_LOST, or UNKNOWN. */
  readonly reason: string;
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
    super(status.message ?? "");
    this.name = "ApiError";
    this.http = http;
    this.status = status;
    const details = status.details ?? [];
    const info = details.find((d) => d["@type"]?.endsWith("google.rpc.ErrorInfo"));
    this.reason = info?.reason ?? (http === 0 ? "SERVER_LOST" : "UNKNOWN");
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
    status = (await response.json()) as Status;
  } catch {
    // A proxy's page, or the connection broke: the HTTP status says enough.
  }
  return new ApiError(response.status, status);
}

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
