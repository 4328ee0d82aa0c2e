// The messages of the contract as they come in JSON: proto/notebook/v1 says what
// their fields mean. A field that has no value is absent.

export type NotebookState =
  | "STATE_UNSPECIFIED"
  | "STATE_CREATING"
  | "STATE_STARTING"
  | "STATE_RUNNING"
  | "STATE_STOPPING"
  | "STATE_STOPPED"
  | "STATE_FAILED";

/** In the order of their numbers. */
export const notebookStates: NotebookState[] = [
  "STATE_UNSPECIFIED",
  "STATE_CREATING",
  "STATE_STARTING",
  "STATE_RUNNING",
  "STATE_STOPPING",
  "STATE_STOPPED",
  "STATE_FAILED",
];

export interface Image {
  uri?: string;
  displayName?: string;
  type?: string;
  /** int64 */
  sizeBytes?: string;
}

export interface Accelerator {
  type?: string;
  model?: string;
  count?: number;
  availableCount?: number;
  maxCount?: number;
}

export interface Notebook {
  name: string;
  displayName?: string;
  state?: NotebookState;
  cloudState?: string;
  stateMessage?: string;
  image?: Image;
  serverType?: string;
  resources?: { cpuCores?: number; memoryBytes?: string; accelerator?: Accelerator };
  resourceGroup?: { id?: string; code?: string };
  namespace?: string;
  ownerId?: string;
  rootOwnerId?: string;
  createTime?: string;
  updateTime?: string;
  observeTime?: string;
  stopTime?: string;
  expireTime?: string;
  progress?: number;
  endpoints?: { serviceIp?: string; serviceUrl?: string; sshUrl?: string; customPort?: number };
  mirrors?: { pip?: string; conda?: string; apt?: string };
  envNames?: string[];
  attributes?: Record<string, string>;
  etag?: string;
}

export type LocationState = "STATE_UNSPECIFIED" | "STATE_LIVE" | "STATE_STALE" | "STATE_UNREACHABLE" | "STATE_DISABLED";

export interface Breaker {
  operation?: "OPERATION_READ" | "OPERATION_WRITE" | "OPERATION_LOGIN";
  state?: "STATE_CLOSED" | "STATE_OPEN" | "STATE_HALF_OPEN";
  openUntil?: string;
}

export interface ResourceGroupUsage {
  id?: string;
  code?: string;
  accelerator?: string;
  free?: number;
  max?: number;
}

export interface PastState {
  state?: LocationState;
  /** `ERROR_REASON_…` */
  reason?: string;
  startTime?: string;
}

export interface Location {
  name: string;
  displayName?: string;
  state?: LocationState;
  /** `ERROR_REASON_…` */
  reason?: string;
  cloudCode?: string;
  message?: string;
  lastSuccessTime?: string;
  lastAttemptTime?: string;
  nextAttemptTime?: string;
  pollInterval?: string;
  notebookCount?: number;
  breakers?: Breaker[];
  resourceGroups?: ResourceGroupUsage[];
  /** Only in the answers of CloudService. */
  stateHistory?: PastState[];
}

export interface Cloud {
  name: string;
  kind?: string;
  capabilities?: string[];
  locations?: Location[];
  budget?: { callsPerHour?: number; remaining?: number };
  /** `ERROR_REASON_…` */
  reason?: string;
}

export type ChangePhase =
  | "PHASE_PLANNED"
  | "PHASE_PENDING"
  | "PHASE_STOPPING"
  | "PHASE_CREATING"
  | "PHASE_VERIFYING"
  | "PHASE_RENAMING"
  | "PHASE_RELEASING"
  | "PHASE_SUCCEEDED"
  | "PHASE_UNCHANGED"
  | "PHASE_FAILED"
  | "PHASE_OUTCOME_UNKNOWN";

export interface ChangeWarning {
  code: string;
  message?: string;
}

export interface ImageChange {
  name?: string;
  notebook?: string;
  newNotebook?: string;
  fromImage?: string;
  toImage?: string;
  phase?: ChangePhase;
  warnings?: ChangeWarning[];
  principal?: string;
  reason?: string;
  requestId?: string;
  createTime?: string;
  updateTime?: string;
  failure?: { reason?: string; message?: string; cloudCode?: string };
  cloudRequestId?: string;
  sent?: boolean;
  steps?: string[];
  imageType?: string;
  acknowledged?: string[];
}

export interface Freshness {
  location: string;
  observeTime?: string;
  stale?: boolean;
}

export interface ListResponse {
  notebooks?: Notebook[];
  nextPageToken?: string;
  totalSize?: number;
  unreachable?: string[];
  freshness?: Freshness[];
  resumeToken?: string;
}

export interface NotebookEvent {
  type: "TYPE_ADDED" | "TYPE_MODIFIED" | "TYPE_DELETED" | "TYPE_LEFT_FILTER";
  notebook: Notebook;
  changedFields?: string[];
  initial?: boolean;
}

/** One frame of a watch; exactly one of the fields after the token is there. */
export interface WatchResponse {
  resumeToken?: string;
  notebook?: NotebookEvent;
  location?: Location;
  bookmark?: { kind: "KIND_SNAPSHOT_END" | "KIND_HEARTBEAT" | "KIND_CLOSING" };
  imageChange?: ImageChange;
  reset?: { reason?: string };
}

export interface Grant {
  role: "ROLE_VIEWER" | "ROLE_OPERATOR" | "ROLE_ADMIN";
  /** `clouds/-`, `clouds/{cloud}` or `clouds/{cloud}/locations/{location}` */
  parent: string;
}

export interface Caller {
  subject?: string;
  method?: "METHOD_NONE" | "METHOD_TOKEN" | "METHOD_OIDC" | "METHOD_CERTIFICATE";
  groups?: string[];
  grants?: Grant[];
  expireTime?: string;
}

/** GET /console.json: how to sign in. It is no part of the contract. */
export interface ConsoleConfig {
  version?: string;
  auth: {
    required: boolean;
    token?: boolean;
    certificate?: boolean;
    oidc?: { issuer: string; clientId: string; scopes?: string[] }[];
  };
}
