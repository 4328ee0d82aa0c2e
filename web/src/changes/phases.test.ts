import { describe, expect, it } from "vitest";
import type { ImageChange } from "../api/types";
import { hasEnded, newer, notebookOf, recreates, stepper, tookOf, wayOf } from "./phases";

const brief = (change: ImageChange, seen?: Parameters<typeof stepper>[1]) => stepper(change, seen).map((s) => `${s.phase.replace("PHASE_", "")} ${s.state}`);

describe("stepper", () => {
  it("follows a change in place", () => {
    expect(brief({ phase: "PHASE_PENDING" })).toEqual(["PENDING current", "VERIFYING todo", "SUCCEEDED todo"]);
    expect(brief({ phase: "PHASE_VERIFYING", sent: true })).toEqual(["PENDING done", "VERIFYING current", "SUCCEEDED todo"]);
    expect(brief({ phase: "PHASE_SUCCEEDED", sent: true })).toEqual(["PENDING done", "VERIFYING done", "SUCCEEDED done"]);
  });

  it("follows the making of another notebook, of one that runs and of one that does not", () => {
    const running: ImageChange = { warnings: [{ code: "NOTEBOOK_RUNNING" }, { code: "NOTEBOOK_ID_CHANGES" }] };
    expect(wayOf(running)).toEqual(["PHASE_PENDING", "PHASE_STOPPING", "PHASE_CREATING", "PHASE_RENAMING", "PHASE_RELEASING"]);
    expect(brief({ ...running, phase: "PHASE_CREATING" })).toEqual([
      "PENDING done",
      "STOPPING done",
      "CREATING current",
      "RENAMING todo",
      "RELEASING todo",
      "SUCCEEDED todo",
    ]);
    expect(wayOf({ acknowledged: ["NOTEBOOK_ID_CHANGES"] })).toEqual(["PHASE_PENDING", "PHASE_CREATING", "PHASE_VERIFYING", "PHASE_RENAMING", "PHASE_RELEASING"]);
  });

  it("marks where a change failed, if it was seen there", () => {
    const change: ImageChange = { phase: "PHASE_FAILED", acknowledged: ["NOTEBOOK_RUNNING", "NOTEBOOK_ID_CHANGES"], sent: true };
    expect(brief(change, "PHASE_CREATING")).toEqual(["PENDING done", "STOPPING done", "CREATING failed", "RENAMING todo", "RELEASING todo", "FAILED failed"]);
    expect(brief(change)).toEqual(["PENDING todo", "STOPPING todo", "CREATING todo", "RENAMING todo", "RELEASING todo", "FAILED failed"]);
    expect(brief({ phase: "PHASE_FAILED", sent: true })).toEqual(["PENDING done", "VERIFYING failed", "FAILED failed"]);
  });

  it("marks an outcome that is not known where it was lost", () => {
    expect(brief({ phase: "PHASE_OUTCOME_UNKNOWN", sent: true })).toEqual(["PENDING done", "VERIFYING unknown", "SUCCEEDED todo"]);
    expect(brief({ phase: "PHASE_OUTCOME_UNKNOWN", newNotebook: "x" }, "PHASE_CREATING")[1]).toBe("CREATING unknown");
  });
});

it("knows ends from what goes on", () => {
  expect(hasEnded({ phase: "PHASE_OUTCOME_UNKNOWN" })).toBe(false);
  expect(hasEnded({ phase: "PHASE_UNCHANGED" })).toBe(true);
});

it("knows a change that makes another notebook by what it has", () => {
  expect(recreates({ phase: "PHASE_VERIFYING" })).toBe(false);
  expect(recreates({ phase: "PHASE_RENAMING" })).toBe(true);
  expect(recreates({ warnings: [{ code: "NOTEBOOK_RUNNING" }] })).toBe(false);
});

it("takes the later record, and never one before the end for the end", () => {
  const early: ImageChange = { name: "c", phase: "PHASE_VERIFYING", updateTime: "2026-01-01T00:00:02Z" };
  const late: ImageChange = { name: "c", phase: "PHASE_CREATING", updateTime: "2026-01-01T00:00:01Z" };
  expect(newer(early, late)).toBe(early);
  expect(newer(late, early)).toBe(early);
  const end: ImageChange = { name: "c", phase: "PHASE_FAILED", updateTime: "2026-01-01T00:00:00Z" };
  expect(newer(early, end)).toBe(end);
  expect(newer(end, early)).toBe(end);
});

it("names the notebook that stays", () => {
  expect(notebookOf({ notebook: "a", newNotebook: "b", phase: "PHASE_SUCCEEDED" })).toBe("b");
  expect(notebookOf({ notebook: "a", newNotebook: "b", phase: "PHASE_CREATING" })).toBe("a");
});

it("measures to the end, or until now", () => {
  const createTime = "2026-01-01T00:00:00Z";
  const at = Date.parse("2026-01-01T00:01:00Z");
  expect(tookOf({ createTime, updateTime: "2026-01-01T00:00:08Z", phase: "PHASE_SUCCEEDED" }, at)).toBe(8000);
  expect(tookOf({ createTime, updateTime: "2026-01-01T00:00:08Z", phase: "PHASE_CREATING" }, at)).toBe(60_000);
  expect(tookOf({}, at)).toBeUndefined();
});
