// What the strip of locations shows.

import type { Cloud, Location } from "../api/types";

/** A location as it was told last: by the watch, or by the last reading of the clouds. */
function newest(l: Location, told: ReadonlyMap<string, Location>): Location {
  const other = told.get(l.name);
  return other && (other.lastAttemptTime ?? "") > (l.lastAttemptTime ?? "") ? other : l;
}

/** places are the locations by their clouds. As long as the clouds were never read, those are shown that the watch has told. */
export function places(clouds: readonly Cloud[] | undefined, told: ReadonlyMap<string, Location>): { cloud: Cloud; locations: Location[] }[] {
  if (clouds) return clouds.map((cloud) => ({ cloud, locations: (cloud.locations ?? []).map((l) => newest(l, told)) }));
  const byCloud = new Map<string, Location[]>();
  for (const name of [...told.keys()].sort()) {
    const cloud = name.split("/").slice(0, 2).join("/");
    byCloud.set(cloud, [...(byCloud.get(cloud) ?? []), told.get(name)!]);
  }
  return [...byCloud].map(([name, locations]) => ({ cloud: { name }, locations }));
}
