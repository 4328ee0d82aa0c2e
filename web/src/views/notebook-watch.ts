// The watch of one notebook: what it is, and what was seen of it since.

import { signal, type Signal } from "@preact/signals";
import { parentOf } from "../api/client";
import { quote } from "../api/quote";
import { onUnauthenticated, token } from "../api/session";
import { Stream } from "../api/stream";
import { nothing, step, type Watched } from "../changes/watched";

/** watchNotebook follows one notebook until it is closed. */
export function watchNotebook(name: string): { watched: Signal<Watched>; close: () => void } {
  const watched = signal<Watched>(nothing);
  const stream = new Stream({
    url: `/v1/${parentOf(name)}/notebooks:watch?${new URLSearchParams({ filter: `name = ${quote(name)}` })}`,
    token,
    onFrames: (frames) => {
      const at = Date.now();
      watched.value = frames.reduce((known, frame) => step(known, frame, name, at), watched.peek());
    },
    onState: (state) => {
      if (state.kind === "refused") {
        if (state.error.reason === "UNAUTHENTICATED") onUnauthenticated(state.error);
        watched.value = { ...watched.peek(), refused: state.error };
      }
    },
  });
  return { watched, close: () => stream.close() };
}
