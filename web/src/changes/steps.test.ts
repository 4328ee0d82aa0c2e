import { expect, test } from "vitest";
import plan from "../../../internal/imagechange/plan.go?raw";
import { stepsInChinese } from "./steps";

test("every step that the server plans has Chinese words, and no other", () => {
  const told = plan
    .split("\n")
    .filter((line) => /p\.change\.Steps = (append\(|\[\]string)/.test(line))
    .flatMap((line) => [...line.matchAll(/"([^"]+)"/g)].map((m) => m[1]!));
  expect(told.length).toBeGreaterThan(5);
  expect(Object.keys(stepsInChinese).sort()).toEqual([...new Set(told)].sort());
});
