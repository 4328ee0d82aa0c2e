import { expect, test } from "vitest";
import type { Location } from "../api/types";
import { places } from "./strip";

const at = (name: string, lastAttemptTime: string, state: Location["state"] = "STATE_LIVE"): Location => ({ name: `clouds/${name}`, lastAttemptTime, ...(state ? { state } : {}) });
const told = (...all: Location[]) => new Map(all.map((l) => [l.name, l]));
const brief = (of: ReturnType<typeof places>) => of.map(({ cloud, locations }) => [cloud.name, ...locations.map((l) => `${l.name} ${l.state}`)]);

test("a location is shown as it was told last", () => {
  const read = [{ name: "clouds/a", locations: [at("a/locations/1", "2026-03-01T00:00:02Z"), at("a/locations/2", "2026-03-01T00:00:02Z")] }, { name: "clouds/b" }];
  const watched = told(at("a/locations/1", "2026-03-01T00:00:01Z", "STATE_STALE"), at("a/locations/2", "2026-03-01T00:00:03Z", "STATE_STALE"));
  expect(brief(places(read, watched))).toEqual([["clouds/a", "clouds/a/locations/1 STATE_LIVE", "clouds/a/locations/2 STATE_STALE"], ["clouds/b"]]);
});

test("what the watch has told is shown while the clouds cannot be read", () => {
  expect(brief(places(undefined, told(at("b/locations/1", ""), at("a/locations/2", ""), at("a/locations/1", ""))))).toEqual([
    ["clouds/a", "clouds/a/locations/1 STATE_LIVE", "clouds/a/locations/2 STATE_LIVE"],
    ["clouds/b", "clouds/b/locations/1 STATE_LIVE"],
  ]);
  expect(places([], told(at("a/locations/1", "")))).toEqual([]); // they were read, and there are none
});
