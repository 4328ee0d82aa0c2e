import { listNotebooks } from "../api/client";
import { quote } from "../api/quote";
import type { Notebook } from "../api/types";

export interface SeenImage {
  uri: string;
  /** The kind that most notebooks with it have. */
  type?: string;
  count: number;
}

/** tally counts the images of notebooks: those that a location has first, and the most used first. */
export function tally(notebooks: readonly Notebook[], location: string): SeenImage[] {
  const byUri = new Map<string, Map<string, number>>();
  const near = new Set<string>();
  for (const { name, image } of notebooks) {
    if (!image?.uri) continue;
    if (name.startsWith(`${location}/`)) near.add(image.uri);
    const types = byUri.get(image.uri) ?? new Map<string, number>();
    types.set(image.type ?? "", (types.get(image.type ?? "") ?? 0) + 1);
    byUri.set(image.uri, types);
  }
  return [...byUri]
    .map(([uri, types]): SeenImage => {
      const type = [...types].sort((a, b) => b[1] - a[1])[0]?.[0];
      return { uri, ...(type ? { type } : {}), count: [...types.values()].reduce((sum, n) => sum + n, 0) };
    })
    .sort((a, b) => Number(near.has(b.uri)) - Number(near.has(a.uri)) || b.count - a.count || a.uri.localeCompare(b.uri));
}

/**
 * imagesFor reads which images a notebook might have, from a few pages of those of its cloud
 * that have the same kind of accelerator: an image is made for one.
 */
export async function imagesFor({ name, resources }: Notebook, signal: AbortSignal): Promise<SeenImage[]> {
  const [, cloud = "", , location = ""] = name.split("/");
  const kind = resources?.accelerator?.type;
  const filter = kind ? `image.uri:* AND resources.accelerator.type = ${quote(kind)}` : "image.uri:*";
  const notebooks: Notebook[] = [];
  let pageToken: string | undefined;
  for (let page = 0; page < 3; page++) {
    const answer = await listNotebooks({ parent: `clouds/${cloud}`, filter, pageSize: 1000, ...(pageToken ? { pageToken } : {}) }, signal);
    notebooks.push(...(answer.notebooks ?? []));
    pageToken = answer.nextPageToken || undefined;
    if (!pageToken) break;
  }
  return tally(notebooks, `clouds/${cloud}/locations/${location}`);
}
