import { expect, it } from "vitest";
import type { Notebook } from "../api/types";
import { changed, differences, timeline, valueAt, type Seen } from "./timeline";

it("merges image changes and what was seen, newest first", () => {
  const seen: Seen[] = [
    { kind: "modified", time: Date.parse("2026-01-01T00:02:00Z"), fields: [] },
    { kind: "deleted", time: Date.parse("2026-01-01T00:04:00Z") },
  ];
  const entries = timeline(
    [
      { name: "c/1", createTime: "2026-01-01T00:01:00Z" },
      { name: "c/3", createTime: "2026-01-01T00:03:00Z" },
    ],
    seen,
  );
  expect(entries.map((e) => (e.kind === "change" ? e.change.name : e.kind))).toEqual(["deleted", "c/3", "modified", "c/1"]);
});

it("has what was seen later first, at the same time", () => {
  const entries = timeline([], [
    { kind: "deleted", time: 1 },
    { kind: "back", time: 1 },
  ]);
  expect(entries.map((e) => e.kind)).toEqual(["back", "deleted"]);
});

const notebook: Notebook = {
  name: "n/1",
  state: "STATE_RUNNING",
  image: { uri: "hub/a:1", sizeBytes: "12" },
  resources: { accelerator: { count: 2, availableCount: 5 } },
  envNames: ["A", "B"],
  attributes: { "replica_specs.rg_id": "rg-1", node: "x" },
  etag: "e1",
};

it("reads the values at the paths of the contract", () => {
  expect(valueAt(notebook, "image.uri")).toBe("hub/a:1");
  expect(valueAt(notebook, "image.size_bytes")).toBe("12");
  expect(valueAt(notebook, "resources.accelerator.count")).toBe("2");
  expect(valueAt(notebook, "env_names")).toBe("A, B");
  expect(valueAt(notebook, "attributes.replica_specs.rg_id")).toBe("rg-1");
  expect(valueAt(notebook, "endpoints.service_url")).toBe("");
  expect(valueAt(undefined, "state")).toBe("");
});

it("tells old and new of the fields that a watch names", () => {
  const after: Notebook = { ...notebook, state: "STATE_STOPPED", image: { uri: "hub/b:1" } };
  expect(changed(notebook, after, ["state", "image.uri"])).toEqual([
    { path: "state", from: "STATE_RUNNING", to: "STATE_STOPPED" },
    { path: "image.uri", from: "hub/a:1", to: "hub/b:1" },
  ]);
});

it("finds what differs by itself after a snapshot, but for what moves by itself", () => {
  const { stateMessage: _, ...rest } = { ...notebook, stateMessage: undefined };
  const after: Notebook = {
    ...rest,
    etag: "e2",
    observeTime: "2026-01-01T00:00:00Z",
    resources: { accelerator: { count: 4, availableCount: 9 } },
    attributes: { node: "y" },
    stopTime: "2026-01-02T00:00:00Z",
  };
  expect(differences(notebook, after)).toEqual(["attributes.node", "attributes.replica_specs.rg_id", "resources.accelerator.count", "stop_time"]);
  expect(changed(notebook, after, undefined).find((f) => f.path === "attributes.replica_specs.rg_id")).toEqual({ path: "attributes.replica_specs.rg_id", from: "rg-1", to: "" });
});
