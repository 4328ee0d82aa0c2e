import { expect, test } from "vitest";
import { and, proposals } from "./complete";

const values = async (field: string, prefix: string) => (field === "cloud" ? ["core", "scnet"] : field === "display_name" ? ["my notebook"] : []).filter((v) => v.includes(prefix));

async function at(text: string): Promise<{ from: number; options: string[] }> {
  const caret = text.indexOf("|");
  return await proposals(text.replace("|", ""), caret, values);
}

test.each([
  ["sta|", 0, "state"],
  ["state |", 6, "="],
  ["state = RUN|", 8, "RUNNING"],
  ["state = RUNNING |", 16, "AND"],
  ["state = RUNNING AND cl|", 20, "cloud"],
  ["state = RUNNING A|", 16, "AND"],
  ["cloud = |", 8, "core"],
  ["cloud=sc|", 6, "scnet"],
  ["display_name = |", 15, '"my notebook"'],
  ["(acc|", 1, "resources.accelerator.count"],
  ["NOT |", 4, "state"],
])("%s", async (text, from, option) => {
  const found = await at(text);
  expect(found.from).toBe(from);
  expect(found.options).toContain(option);
});

test("nothing is proposed in what is quoted, nor what is there already", async () => {
  expect((await at('"some text sta|')).options).toEqual([]);
  expect((await at("state = RUNNING|")).options).not.toContain("RUNNING");
});

test("a term is added so that it holds for all of the filter", () => {
  expect(and("", "a = 1")).toBe("a = 1");
  expect(and("b = 2", "a = 1")).toBe("b = 2 AND a = 1");
  expect(and("b = 2 OR c = 3", "a = 1")).toBe("(b = 2 OR c = 3) AND a = 1");
  expect(and("a = 1", "a = 1")).toBe("a = 1");
  expect(and("b = 2 AND a = 1", "a = 1")).toBe("b = 2 AND a = 1");
  expect(and("NOT a = 1", "a = 1")).toBe("NOT a = 1 AND a = 1");
});

test("a term takes the place of one that says something else of the same", () => {
  expect(and("expire_time < 2026-03-01T00:00:00Z", "expire_time < 2026-03-02T00:00:00Z")).toBe("expire_time < 2026-03-02T00:00:00Z");
  expect(and('a = "x AND y" AND expire_time<2026-03-01T00:00:00Z AND b', "expire_time < 2026-03-02T00:00:00Z")).toBe('a = "x AND y" AND expire_time < 2026-03-02T00:00:00Z AND b');
  expect(and("state = RUNNING", "state = FAILED")).toBe("state = FAILED");
  expect(and(and("cloud = core AND location = xb3", "cloud = scnet"), "location = 11250")).toBe("cloud = scnet AND location = 11250");
  expect(and("(b = 2 OR c = 3) AND a = 1", "a = 2")).toBe("(b = 2 OR c = 3) AND a = 2");
  expect(and('name = "a OR b"', "a = 2")).toBe('name = "a OR b" AND a = 2');
  // These say something else, or not only that.
  expect(and("expire_time > 2026-03-01T00:00:00Z", "expire_time < 2026-03-02T00:00:00Z")).toBe("expire_time > 2026-03-01T00:00:00Z AND expire_time < 2026-03-02T00:00:00Z");
  expect(and("(state = RUNNING)", "state = FAILED")).toBe("(state = RUNNING) AND state = FAILED");
  expect(and("state = RUNNING OR state = STOPPED", "state = FAILED")).toBe("(state = RUNNING OR state = STOPPED) AND state = FAILED");
  expect(and("NOT state = RUNNING", "state = FAILED")).toBe("NOT state = RUNNING AND state = FAILED");
  expect(and('"state = RUNNING AND x"', "state = FAILED")).toBe('"state = RUNNING AND x" AND state = FAILED');
});
