import { describe, expect, test, vi } from "vitest";
import type { Notebook } from "../api/types";
import { tally } from "./images";

vi.mock("../api/client", () => ({})); // which needs a browser

const notebook = (location: string, uri?: string, type?: string): Notebook => ({
  name: `clouds/c/locations/${location}/notebooks/n`,
  ...(uri ? { image: { uri, ...(type ? { type } : {}) } } : {}),
});

describe("the images that notebooks have", () => {
  test("those of the location come first, and the most used", () => {
    const all = [notebook("b", "far"), notebook("b", "far"), notebook("b", "far"), notebook("a", "once"), notebook("a", "twice"), notebook("b", "twice"), notebook("ab", "not-here")];
    expect(tally(all, "clouds/c/locations/a").map((i) => [i.uri, i.count])).toEqual([
      ["twice", 2],
      ["once", 1],
      ["far", 3],
      ["not-here", 1],
    ]);
  });

  test("the kind is that which most have", () => {
    const all = [notebook("a", "x", "custom"), notebook("a", "x", "official"), notebook("a", "x", "official"), notebook("a", "y"), notebook("a")];
    expect(tally(all, "clouds/c/locations/a")).toEqual([
      { uri: "x", type: "official", count: 3 },
      { uri: "y", count: 1 },
    ]);
  });
});
