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
