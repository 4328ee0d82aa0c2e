import { expect, it } from "vitest";
import type { Location } from "../api/types";
import { later, pools, scaleOf, segments, shares, sharesCards, worst } from "./clouds-model";

const at = Date.parse("2026-01-01T12:00:00Z");
const minute = 60_000;
const ago = (minutes: number) => new Date(at - minutes * minute).toISOString();
const brief = (all: ReturnType<typeof segments>) => all.map((s) => [s.state?.replace("STATE_", "") ?? "-", (at - s.from) / minute, (at - s.to) / minute]);

it("cuts the last hour into states", () => {
  const all = segments(
    [
      { state: "STATE_LIVE", startTime: ago(300) },
      { state: "STATE_UNREACHABLE", reason: "ERROR_REASON_CLOUD_TIMEOUT", startTime: ago(20) },
      { state: "STATE_LIVE", startTime: ago(5) },
    ],
    at,
  );
  expect(brief(all)).toEqual([
    ["LIVE", 60, 20],
    ["UNREACHABLE", 20, 5],
    ["LIVE", 5, 0],
  ]);
  expect(all[1]?.reasons).toEqual(["ERROR_REASON_CLOUD_TIMEOUT"]);
  expect(shares(all)).toEqual([
    { state: "STATE_LIVE", ms: 45 * minute },
    { state: "STATE_UNREACHABLE", ms: 15 * minute },
  ]);
});

it("takes an outage with several reasons for one", () => {
  const all = segments(
    [
      { state: "STATE_LIVE", startTime: ago(50) },
      { state: "STATE_UNREACHABLE", reason: "A", startTime: ago(30) },
      { state: "STATE_UNREACHABLE", reason: "B", startTime: ago(20) },
      { state: "STATE_UNREACHABLE", reason: "A", startTime: ago(10) },
    ],
    at,
  );
  expect(brief(all)).toEqual([
    ["-", 60, 50],
    ["LIVE", 50, 30],
    ["UNREACHABLE", 30, 0],
  ]);
  expect(all[2]?.reasons).toEqual(["A", "B"]);
});

it("says nothing of the time before the server saw anything", () => {
  expect(brief(segments([{ state: "STATE_STALE", startTime: ago(10) }], at))).toEqual([
    ["-", 60, 10],
    ["STALE", 10, 0],
  ]);
  expect(brief(segments([], at))).toEqual([["-", 60, 0]]);
});

it("leaves out what ended more than an hour ago, and copes with a clock that is behind", () => {
  expect(
    brief(
      segments(
        [
          { state: "STATE_STALE", startTime: ago(200) },
          { state: "STATE_LIVE", startTime: ago(90) },
        ],
        at,
      ),
    ),
  ).toEqual([["LIVE", 60, 0]]);
  expect(brief(segments([{ state: "STATE_LIVE", startTime: ago(-1) }], at))).toEqual([["-", 60, 0]]);
});

it("shows the worst breaker of each operation, in one order", () => {
  expect(
    worst([
      { operation: "OPERATION_LOGIN", state: "STATE_CLOSED" },
      { operation: "OPERATION_READ", state: "STATE_HALF_OPEN" },
      { operation: "OPERATION_LOGIN", state: "STATE_OPEN", openUntil: ago(-1) },
      { operation: "OPERATION_LOGIN", state: "STATE_OPEN", openUntil: ago(-2) },
    ]),
  ).toEqual([
    { operation: "OPERATION_READ", state: "STATE_HALF_OPEN" },
    { operation: "OPERATION_LOGIN", state: "STATE_OPEN", openUntil: ago(-2) },
  ]);
});

const location: Location = {
  name: "clouds/a/locations/b",
  resourceGroups: [
    { id: "15", code: "x", accelerator: "gpu", free: 3, max: 8 },
    { id: "15", code: "x", accelerator: "dcu", free: 3, max: 8 },
    { id: "16", code: "y", accelerator: "gpu", free: 41 },
    { id: "17", code: "z", accelerator: "gpu" },
  ],
};

it("groups pools by kind of accelerator, the most free first", () => {
  const all = pools(location);
  expect([...all.keys()]).toEqual(["dcu", "gpu"]);
  expect(all.get("gpu")?.map((p) => [p.code, p.free, p.max])).toEqual([
    ["y", 41, undefined],
    ["x", 3, 8],
    ["z", 0, undefined],
  ]);
  expect(sharesCards(location)).toBe(true);
  expect(sharesCards({ name: "l", resourceGroups: [{ id: "1", free: 1 }, { id: "2", free: 1 }] })).toBe(false);
});

it("has one scale for a kind, round and large enough", () => {
  const most = (free: number, max = 0) => scaleOf([{ name: "l", resourceGroups: [{ accelerator: "gpu", free, max }] }], "gpu");
  expect([most(0), most(3), most(2, 8), most(41), most(64), most(512), most(1234)]).toEqual([1, 3, 8, 45, 70, 520, 1300]);
  expect(scaleOf([location], "dcu")).toBe(8);
  expect(scaleOf([location], "none")).toBe(1);
});

it("takes the later of two reports of a location", () => {
  const early: Location = { name: "l", lastAttemptTime: ago(2) };
  const late: Location = { name: "l", lastAttemptTime: ago(1) };
  expect(later(early, late)).toBe(late);
  expect(later(late, early)).toBe(late);
  expect(later(undefined, early)).toBe(early);
  expect(later({ name: "l" }, { name: "l", state: "STATE_LIVE" })).toEqual({ name: "l" });
});
