import { expect, it } from "vitest";
import type { Notebook, NotebookEvent, WatchResponse } from "../api/types";
import { nothing, step, type Watched } from "./watched";

const name = "clouds/a/locations/b/notebooks/c";
const version = (etag: string, more: Partial<Notebook> = {}): Notebook => ({ name, etag, state: "STATE_RUNNING", ...more });
const event = (type: NotebookEvent["type"], notebook: Notebook, changedFields?: string[]): WatchResponse => ({ notebook: { type, notebook, ...(changedFields ? { changedFields } : {}) } });
const end: WatchResponse = { bookmark: { kind: "KIND_SNAPSHOT_END" } };
const after = (...frames: WatchResponse[]): Watched => frames.reduce((known, frame, i) => step(known, frame, name, i + 1), nothing);

it("knows a notebook once it was told, and that there is none once all was told", () => {
  expect(after(event("TYPE_ADDED", version("1")), end)).toMatchObject({ complete: true, notebook: { etag: "1" }, seen: [] });
  const none = after(end);
  expect(none.complete).toBe(true);
  expect(none.notebook).toBeUndefined();
  expect(none.deletedAt).toBeUndefined();
});

it("tells what changed, old and new", () => {
  const known = after(event("TYPE_ADDED", version("1")), end, event("TYPE_MODIFIED", version("2", { state: "STATE_STOPPED" }), ["state"]));
  expect(known.notebook?.state).toBe("STATE_STOPPED");
  expect(known.seen).toEqual([{ kind: "modified", time: 3, fields: [{ path: "state", from: "STATE_RUNNING", to: "STATE_STOPPED" }] }]);
});

it("keeps the last version of a notebook that was deleted, and knows when it is back", () => {
  const gone = after(event("TYPE_ADDED", version("1")), end, event("TYPE_DELETED", version("2")));
  expect(gone).toMatchObject({ notebook: { etag: "2" }, deletedAt: 3, seen: [{ kind: "deleted", time: 3 }] });
  const back = step(gone, event("TYPE_ADDED", version("2")), name, 9);
  expect(back.deletedAt).toBeUndefined();
  expect(back.seen.map((s) => s.kind)).toEqual(["deleted", "back"]);
});

it("finds what it missed in a snapshot that is told anew", () => {
  const known = after(event("TYPE_ADDED", version("1")), end, { reset: { reason: "TOKEN_EXPIRED" } }, event("TYPE_ADDED", version("5", { state: "STATE_FAILED" })), end);
  expect(known.complete).toBe(true);
  expect(known.deletedAt).toBeUndefined();
  expect(known.seen).toEqual([{ kind: "modified", time: 4, fields: [{ path: "state", from: "STATE_RUNNING", to: "STATE_FAILED" }] }]);
});

it("takes a notebook for gone that a snapshot told anew has not", () => {
  const known = after(event("TYPE_ADDED", version("1")), end, { reset: { reason: "TOKEN_EXPIRED" } }, end);
  expect(known).toMatchObject({ deletedAt: 4, notebook: { etag: "1" } });
  // Only a snapshot says so; a resumed watch tells nothing again.
  expect(after(event("TYPE_ADDED", version("1")), end, end).deletedAt).toBeUndefined();
});

it("says nothing of the same version told twice, nor of other notebooks", () => {
  const known = after(event("TYPE_ADDED", version("1")), event("TYPE_ADDED", version("1")), event("TYPE_DELETED", { ...version("9"), name: `${name}x` }));
  expect(known).toMatchObject({ notebook: { etag: "1" }, seen: [] });
  expect(known.deletedAt).toBeUndefined();
});

it("keeps the latest record of each image change", () => {
  const known = after(
    { imageChange: { name: "imageChanges/1", phase: "PHASE_SUCCEEDED", updateTime: "2026-01-01T00:00:01Z" } },
    { imageChange: { name: "imageChanges/1", phase: "PHASE_VERIFYING", updateTime: "2026-01-01T00:00:00Z" } },
  );
  expect(known.changes.get("imageChanges/1")?.phase).toBe("PHASE_SUCCEEDED");
});
