import { expect, it } from "vitest";
import type { ImageChange } from "../api/types";
import { backOf, characterAt, filterOf, merge, parseChips, positionOf, previousOf, repeatOf } from "./history";

const at = (minute: number) => new Date(Date.UTC(2026, 0, 1, 0, minute)).toISOString();
const change = (id: number, more: ImageChange): ImageChange => ({ name: `imageChanges/${id}`, notebook: "n/1", phase: "PHASE_SUCCEEDED", createTime: at(id), updateTime: at(id), ...more });

it("merges lists by name, the latest record of each, newest first", () => {
  const stale = change(1, { phase: "PHASE_VERIFYING" });
  const fresh = change(1, { updateTime: at(5) });
  const merged = merge([stale, change(3, {})], [change(2, {}), fresh], [{ phase: "PHASE_PLANNED" }]);
  expect(merged.map((c) => c.name)).toEqual(["imageChanges/3", "imageChanges/2", "imageChanges/1"]);
  expect(merged[2]).toBe(fresh);
});

it("goes back to the image before the last change that succeeded", () => {
  const all = [
    change(1, { fromImage: "a", toImage: "b", imageType: "user" }),
    change(2, { fromImage: "b", toImage: "c", imageType: "official" }),
    change(3, { fromImage: "c", toImage: "d", imageType: "custom", phase: "PHASE_FAILED" }),
    change(4, { notebook: "n/2", fromImage: "x", toImage: "y" }),
  ];
  expect(previousOf("n/1", all)).toEqual({ notebook: "n/1", image: "b", type: "user" });
  expect(previousOf("n/2", all)).toEqual({ notebook: "n/2", image: "x" });
  expect(previousOf("n/3", all)).toBeUndefined();
  expect(previousOf("n/1", [])).toBeUndefined();
});

it("goes back on the notebook that took the other's place", () => {
  const made = change(1, { newNotebook: "n/9", fromImage: "a", toImage: "b" });
  expect(previousOf("n/9", [made])).toEqual({ notebook: "n/9", image: "a" });
  expect(previousOf("n/1", [made])).toBeUndefined();
  expect(backOf(change(2, { phase: "PHASE_UNCHANGED", fromImage: "a", toImage: "a" }), [])).toBeUndefined();
  expect(backOf(change(2, { toImage: "a" }), [])).toBeUndefined();
});

it("takes the kind of the old image from an earlier change only", () => {
  const back = change(3, { fromImage: "b", toImage: "c", imageType: "custom" });
  const later = change(4, { fromImage: "c", toImage: "b", imageType: "official" });
  expect(backOf(back, [back, later])).toEqual({ notebook: "n/1", image: "b" });
});

it("repeats what was asked for", () => {
  expect(repeatOf(change(1, { toImage: "b", imageType: "user", phase: "PHASE_FAILED" }))).toEqual({ notebook: "n/1", image: "b", type: "user" });
  expect(repeatOf(change(1, {}))).toBeUndefined();
});

it("puts what was typed first, and the chips after it", () => {
  const now = Date.parse("2026-02-02T10:00:00.123Z");
  expect(filterOf("", new Set(), "me", now)).toBe("");
  expect(filterOf("cloud = core", new Set(["failed", "unknown"]), "me", now)).toBe("cloud = core AND phase = FAILED OR phase = OUTCOME_UNKNOWN");
  expect(filterOf("", new Set(["day", "mine"]), 'oidc:"x"', now)).toBe('create_time >= 2026-02-01T10:00:00Z AND principal = "oidc:\\"x\\""');
  expect(filterOf("", new Set(["mine"]), undefined, now)).toBe("");
  expect([...parseChips("mine,failed,bogus")]).toEqual(["failed", "mine"]);
  expect([...parseChips(null)]).toEqual([]);
});

it("finds the place of a fault in characters", () => {
  expect(positionOf('at position 8: phase: "BAD" is none of …')).toBe(8);
  expect(positionOf("no place")).toBeUndefined();
  expect(characterAt('reason = "镜像" BAD', 18)).toBe(14);
  expect(characterAt("abc", 2)).toBe(2);
});
