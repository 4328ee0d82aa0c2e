import { expect, it } from "vitest";
import { acknowledged, allTicked, newRequestId, Requests, type PendingRequest } from "./request";

function memory() {
  const all = new Map<string, string>();
  return {
    all,
    getItem: (key: string) => all.get(key) ?? null,
    setItem: (key: string, value: string) => void all.set(key, value),
    removeItem: (key: string) => void all.delete(key),
  };
}

const uuid = /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;

it("makes a UUID where the page has no randomUUID", () => {
  const plain = { getRandomValues: crypto.getRandomValues.bind(crypto) };
  const ids = new Set(Array.from({ length: 200 }, () => newRequestId(plain)));
  expect(ids.size).toBe(200);
  for (const id of ids) expect(id).toMatch(uuid);
  expect(newRequestId({ ...plain, randomUUID: () => "given" })).toBe("given");
});

const request: PendingRequest = { requestId: "r-1", image: "hub/a:1", imageType: "user", username: "me", reason: "why", etag: "e", acknowledge: ["A"], plan: { toImage: "hub/a:1" } };

it("keeps a request for its notebook over a reload, until it is forgotten", () => {
  const store = memory();
  new Requests(store).keep("n/1", request);
  const again = new Requests(store);
  expect(again.get("n/1")).toEqual(request);
  expect(again.get("n/2")).toBeUndefined();
  again.keep("n/1", { ...request, change: "imageChanges/7" });
  expect(new Requests(store).get("n/1")?.change).toBe("imageChanges/7");
  again.forget("n/1");
  expect(new Requests(store).get("n/1")).toBeUndefined();
});

it("never stores a password, even if it is handed one", () => {
  const store = memory();
  new Requests(store).keep("n/1", { ...request, password: "hunter2", registryCredential: { username: "me", password: "hunter2" } } as PendingRequest);
  expect([...store.all.values()].join()).not.toContain("hunter2");
  expect([...store.all.values()].join()).toContain("r-1");
});

it("takes what it cannot read for nothing", () => {
  const store = memory();
  for (const text of ["{", "null", "7", '{"requestId":"r"}', '{"requestId":"r","image":"i","acknowledge":"A"}']) {
    store.setItem("notebookd.change:n/1", text);
    expect(new Requests(store).get("n/1")).toBeUndefined();
  }
});

it("acknowledges exactly what was ticked of the plan", () => {
  const plan = { warnings: [{ code: "A" }, { code: "B" }] };
  expect(allTicked(plan, new Set(["A"]))).toBe(false);
  expect(allTicked(plan, new Set(["A", "B"]))).toBe(true);
  expect(allTicked({}, new Set())).toBe(true);
  expect(acknowledged(plan, new Set(["B", "A", "OLD"]))).toEqual(["A", "B"]);
  expect(acknowledged(plan, new Set(["B"]))).toEqual(["B"]);
});
