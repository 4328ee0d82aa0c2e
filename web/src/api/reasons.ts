// The reasons that the server gives, by which its answers are told from those of
// whoever stands between: proto/notebook/v1/errors.proto says what they mean. A test of
// the server compares.

export const knownReasons = [
  "CIRCUIT_OPEN",
  "CLOUD_UNAVAILABLE",
  "CLOUD_TIMEOUT",
  "CLOUD_RATE_LIMITED",
  "CALL_BUDGET_SPENT",
  "CLOUD_BAD_RESPONSE",
  "CLOUD_CREDENTIALS_REJECTED",
  "CLOUD_REJECTED",
  "OPERATION_NOT_SUPPORTED",
  "LOCATION_DISABLED",
  "NOTEBOOK_NOT_FOUND",
  "CLOUD_NOT_FOUND",
  "WARNINGS_NOT_ACKNOWLEDGED",
  "ETAG_MISMATCH",
  "CHANGE_IN_PROGRESS",
  "REQUEST_ID_REUSED",
  "OUTCOME_UNKNOWN",
  "IMAGE_NOT_FOUND",
  "RESUME_TOKEN_INVALID",
  "PAGE_TOKEN_INVALID",
  "FILTER_INVALID",
  "INVALID_FIELD",
  "SLOW_READER",
  "TOO_MANY_WATCHES",
  "STORE_UNAVAILABLE",
  "DRAINING",
  "UNAUTHENTICATED",
  "PERMISSION_DENIED",
  "RATE_LIMITED",
  "INTERNAL",
  "CALLER_GONE",
  "IMAGE_CHANGE_NOT_FOUND",
  "ISSUER_UNAVAILABLE",
] as const;

export type KnownReason = (typeof knownReasons)[number];
