// Routes are in the fragment of the URL, so that the server has one page only and
// what somebody looks for reaches no log on the way.
//
//   #/                              notebooks; ?filter=…&group=…&sort=…
//   #/clouds                        clouds
//   #/clouds/{cloud}/locations/{location}/notebooks/{id}          one notebook
//   #/clouds/{cloud}/locations/{location}/notebooks/{id}/change   change its image; ?image=…&type=…
//   #/history                       image changes; ?filter=…

import { signal } from "@preact/signals";

export type Route =
  | { view: "notebooks" }
  | { view: "clouds" }
  | { view: "notebook"; name: string }
  | { view: "change"; name: string }
  | { view: "history" }
  | { view: "nowhere" };

export interface Place {
  route: Route;
  params: URLSearchParams;
}

const notebookPath = /^\/(clouds\/[^/]+\/locations\/[^/]+\/notebooks\/[^/]+)(\/change)?$/;

export function parsePlace(hash: string): Place {
  const [path = "", search = ""] = hash.replace(/^#/, "").split(/\?(.*)/s);
  const params = new URLSearchParams(search);
  const route = ((): Route => {
    if (path === "" || path === "/") return { view: "notebooks" };
    if (path === "/clouds") return { view: "clouds" };
    if (path === "/history") return { view: "history" };
    const match = notebookPath.exec(path);
    if (match?.[1]) return { view: match[2] ? "change" : "notebook", name: match[1] };
    return { view: "nowhere" };
  })();
  return { route, params };
}

/** Where the reader is. */
export const place = signal<Place>(parsePlace(location.hash));

addEventListener("hashchange", () => {
  place.value = parsePlace(location.hash);
});

/** href makes a link: href("/clouds"), href("/", { filter }). */
export function href(path: string, params: Record<string, string | undefined> = {}): string {
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(params)) if (value) search.set(name, value);
  const text = search.toString();
  return `#${path}${text ? `?${text}` : ""}`;
}

/** go moves to a link of href. */
export function go(link: string): void {
  location.hash = link;
}

/** setParams changes parameters of this place, without a step in the history unless asked for. */
export function setParams(changes: Record<string, string | undefined>, step = false): void {
  const params = new URLSearchParams(place.value.params);
  for (const [name, value] of Object.entries(changes)) {
    if (value) params.set(name, value);
    else params.delete(name);
  }
  const path = location.hash.replace(/^#/, "").split("?")[0] || "/";
  const text = params.toString();
  const link = `#${path}${text ? `?${text}` : ""}`;
  if (step) history.pushState(null, "", link);
  else history.replaceState(null, "", link);
  place.value = parsePlace(link);
}
