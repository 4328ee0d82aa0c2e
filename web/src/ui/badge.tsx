import { locationStateWord, phaseWord, stateWord } from "../i18n/words";

const tones: Record<string, string> = {
  STATE_RUNNING: "good",
  STATE_LIVE: "good",
  STATE_CREATING: "busy",
  STATE_STARTING: "busy",
  STATE_STOPPING: "busy",
  STATE_STALE: "busy",
  STATE_FAILED: "bad",
  STATE_UNREACHABLE: "bad",
  PHASE_SUCCEEDED: "good",
  PHASE_UNCHANGED: "good",
  PHASE_FAILED: "bad",
  PHASE_OUTCOME_UNKNOWN: "busy",
  PHASE_PENDING: "busy",
  PHASE_STOPPING: "busy",
  PHASE_CREATING: "busy",
  PHASE_VERIFYING: "busy",
  PHASE_RENAMING: "busy",
  PHASE_RELEASING: "busy",
};

export const StateBadge = ({ state }: { state: string | undefined }) => <span class={`badge ${tones[state ?? ""] ?? ""}`}>{stateWord(state)}</span>;
export const LocationBadge = ({ state }: { state: string | undefined }) => <span class={`badge ${tones[state ?? ""] ?? ""}`}>{locationStateWord(state)}</span>;
export const PhaseBadge = ({ phase }: { phase: string | undefined }) => <span class={`badge ${tones[phase ?? ""] ?? ""}`}>{phaseWord(phase)}</span>;
