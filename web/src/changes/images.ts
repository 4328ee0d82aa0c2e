import { listNotebooks } from "../api/client";
import type { Notebook } from "../api/types";

export interface SeenImage {
  uri: string;
  /** The kind that most notebooks with it have. */
  type?: string;
  count: number;
}

/** tally counts the images of notebooks, the most used first. */
export function tally(notebooks: readonly Notebook[]): SeenImage[] {
  const byUri = new Map<string, Map<string, number>>();
  for (const { image } of notebooks) {
    if (!image?.uri) continue;
    const types = byUri.get(image.uri) ?? new Map<string, number>();
    types.set(image.type ?? "", (types.get(image.type ?? "") ?? 0) + 1);
    byUri.set(image.uri, types);
  }
  return [...byUri]
    .map(([uri, types]): SeenImage => {
      const type = [...types].sort((a, b) => b[1] - a[1])[0]?.[0];
      return { uri, ...(type ? { type } : {}), count: [...types.values()].reduce((sum, n) => sum + n, 0) };
    })
    .sort((a, b) => b.count - a.count || a.uri.localeCompare(b.uri));
}

/** imagesOf reads which images are used in a cloud, from a few pages of its notebooks. */
export async function imagesOf(cloud: string, signal: AbortSignal): Promise<SeenImage[]> {
  const notebooks: Notebook[] = [];
  let pageToken: string | undefined;
  for (let page = 0; page < 3; page++) {
    const answer = await listNotebooks({ parent: cloud, filter: "image.uri:*", pageSize: 1000, ...(pageToken ? { pageToken } : {}) }, signal);
    notebooks.push(...(answer.notebooks ?? []));
    pageToken = answer.nextPageToken || undefined;
    if (!pageToken) break;
  }
  return tally(notebooks);
}
