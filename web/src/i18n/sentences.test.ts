import { beforeAll, describe, expect, test, vi } from "vitest";
import cases from "../../sentences/testdata/cases.json";

// The language is looked up when the module is loaded.
vi.stubGlobal("localStorage", { getItem: () => "zh", setItem: () => {} });
let sentences: typeof import("./sentences");
let i18n: typeof import(".");
beforeAll(async () => {
  [sentences, i18n] = await Promise.all([import("./sentences"), import(".")]);
});

describe("what the server says", () => {
  test.each(cases as [string, string | null][])("%s", (english, chinese) => {
    expect(sentences.chineseOf(english)).toBe(chinese ?? undefined);
  });

  test("is shown as it is in English, and where it is not known", () => {
    i18n.lang.value = "en";
    expect(sentences.said("release the old one")).toBe("release the old one");
    expect(sentences.langOf("release the old one")).toBeUndefined();
    i18n.lang.value = "zh";
    expect(sentences.said("release the old one")).toBe("释放旧实例");
    expect(sentences.langOf("release the old one")).toBeUndefined();
    expect(sentences.said("something new")).toBe("something new");
    expect(sentences.langOf("something new")).toBe("en");
  });

  test("takes no long time, whatever somebody has typed", () => {
    const began = performance.now();
    for (const text of ["a: ".repeat(1300), "at position 1: ".repeat(270), "a; ".repeat(1300), "a: b; c: d; e: f; g: h; i", "not ; ".repeat(600)]) sentences.chineseOf(text);
    expect(performance.now() - began).toBeLessThan(2000);
  });
});
