// The way of an image change: which phases it passes on its cloud, and how far it is.

import type { ChangePhase, ImageChange } from "../api/types";

/** Phases after which nothing comes. */
const ends: ReadonlySet<string> = new Set(["PHASE_SUCCEEDED", "PHASE_UNCHANGED", "PHASE_FAILED"]);

export function hasEnded(change: ImageChange): boolean {
  return ends.has(change.phase ?? "");
}

const onlyRecreating: ReadonlySet<string> = new Set(["PHASE_STOPPING", "PHASE_CREATING", "PHASE_RENAMING", "PHASE_RELEASING"]);

/** Whether a change makes another notebook. */
export function recreates(change: ImageChange): boolean {
  return (
    !!change.newNotebook ||
    onlyRecreating.has(change.phase ?? "") ||
    !!change.warnings?.some((w) => w.code === "NOTEBOOK_ID_CHANGES") ||
    !!change.acknowledged?.includes("NOTEBOOK_ID_CHANGES")
  );
}

/** The phases that a change passes, in order, without how it ends. */
export function wayOf(change: ImageChange): ChangePhase[] {
  if (!recreates(change)) return ["PHASE_PENDING", "PHASE_VERIFYING"];
  const running = !!change.warnings?.some((w) => w.code === "NOTEBOOK_RUNNING") || !!change.acknowledged?.includes("NOTEBOOK_RUNNING");
  // The one that runs is stopped before; one that does not run has its successor stopped after.
  return running
    ? ["PHASE_PENDING", "PHASE_STOPPING", "PHASE_CREATING", "PHASE_RENAMING", "PHASE_RELEASING"]
    : ["PHASE_PENDING", "PHASE_CREATING", "PHASE_VERIFYING", "PHASE_RENAMING", "PHASE_RELEASING"];
}

export type StepState = "done" | "current" | "todo" | "failed" | "unknown";

export interface Step {
  phase: ChangePhase;
  state: StepState;
}

/**
 * stepper tells where a change is. seen is the last phase on its way that it was
 * seen in: the record of one that has failed does not say where it did.
 */
export function stepper(change: ImageChange, seen?: ChangePhase): Step[] {
  const way = wayOf(change);
  const phase = change.phase ?? "PHASE_PENDING";
  if (phase === "PHASE_SUCCEEDED" || phase === "PHASE_UNCHANGED") {
    return [...way, phase].map((p) => ({ phase: p, state: "done" }));
  }
  let at = way.indexOf(phase);
  if (at < 0 && seen) at = way.indexOf(seen);
  // In place there is one thing to send, so what was sent had passed the first phase.
  if (at < 0 && change.sent && !recreates(change)) at = 1;
  const steps: Step[] = way.map((p, i) => ({ phase: p, state: i < at ? "done" : "todo" }));
  const here = steps[Math.max(at, 0)];
  if (phase === "PHASE_FAILED") {
    if (at >= 0 && here) here.state = "failed";
    // Not known where: the steps are left open, and the end says it.
    steps.push({ phase, state: "failed" });
    return steps;
  }
  if (here) here.state = phase === "PHASE_OUTCOME_UNKNOWN" ? "unknown" : "current";
  steps.push({ phase: "PHASE_SUCCEEDED", state: "todo" });
  return steps;
}

/** newer returns the later of two records of one change. */
export function newer(a: ImageChange | undefined, b: ImageChange | undefined): ImageChange | undefined {
  if (!a || !b) return a ?? b;
  if (hasEnded(a) !== hasEnded(b)) return hasEnded(a) ? a : b;
  return Date.parse(b.updateTime ?? "") >= Date.parse(a.updateTime ?? "") ? b : a;
}

/** The notebook that a change is about now: the new one once there is one that stays. */
export function notebookOf(change: ImageChange): string {
  return (change.phase === "PHASE_SUCCEEDED" && change.newNotebook) || change.notebook || "";
}

/** How long a change took, or has taken so far, in milliseconds. */
export function tookOf(change: ImageChange, at: number): number | undefined {
  const from = Date.parse(change.createTime ?? "");
  const to = hasEnded(change) ? Date.parse(change.updateTime ?? "") : at;
  return Number.isNaN(from) || Number.isNaN(to) ? undefined : Math.max(0, to - from);
}
