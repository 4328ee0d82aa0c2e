import { describe, expect, test } from "vitest";
import { ApiError, errorOf, errorOfStatus, lost, type Status } from "./errors";

const info = (reason: string, more: object = {}): Status => ({
  code: 7,
  message: "words of the server",
  details: [{ "@type": "type.googleapis.com/google.rpc.ErrorInfo", reason, domain: "notebookd", ...more }],
});
const answer = (status: number, body: string, type = "application/json") => new Response(body, { status, headers: { "Content-Type": type } });

describe("whose answer it is", () => {
  test.each([
    ["the server's own", answer(403, JSON.stringify(info("PERMISSION_DENIED"))), "PERMISSION_DENIED", true],
    ["the server's own, with a reason of a later version", answer(403, JSON.stringify(info("NO_LUCK"))), "NO_LUCK", false],
    ["a page of a proxy", answer(404, "<html>nginx</html>", "text/html"), "SERVER_LOST", false],
    ["JSON of a proxy", answer(401, '{"message":"Unauthorized"}'), "SERVER_LOST", false],
    ["a Status of another API", answer(403, JSON.stringify(info("PERMISSION_DENIED", { domain: "googleapis.com" }))), "SERVER_LOST", false],
    ["a Status without an ErrorInfo", answer(400, '{"code":3,"message":"bad","details":[]}'), "SERVER_LOST", false],
    ["a detail of no known form", answer(400, '{"details":[null,7,{"@type":7}]}'), "SERVER_LOST", false],
    ["details that are no list", answer(400, '{"details":{"reason":"PERMISSION_DENIED"},"message":{}}'), "SERVER_LOST", false],
    ["null", answer(500, "null"), "SERVER_LOST", false],
    ["nothing", answer(502, ""), "SERVER_LOST", false],
  ])("%s", async (_, response, reason, own) => {
    const error = await errorOf(response);
    expect(error).toBeInstanceOf(ApiError);
    expect([error.reason, error.own, error.http]).toEqual([reason, own, response.status]);
  });

  test("no answer at all", () => {
    expect(lost(new TypeError("fetch failed"))).toMatchObject({ reason: "SERVER_LOST", own: false, http: 0, message: "fetch failed" });
  });
});

test("what an error says beside its reason", () => {
  const error = errorOfStatus(
    JSON.stringify({
      message: "m",
      details: [
        { "@type": "type.googleapis.com/google.rpc.ErrorInfo", reason: "RATE_LIMITED", domain: "notebookd", metadata: { a: "b" } },
        { "@type": "type.googleapis.com/google.rpc.RetryInfo", retryDelay: "1.5s" },
        { "@type": "type.googleapis.com/google.rpc.BadRequest", fieldViolations: [{ field: "filter", description: "no" }] },
        { "@type": "type.googleapis.com/google.rpc.PreconditionFailure", violations: [{ type: "NOTEBOOK_RUNNING", description: "runs" }] },
      ],
    }),
  );
  expect(error).toMatchObject({ own: true, retryAfter: 1500, metadata: { a: "b" }, missing: [{ code: "NOTEBOOK_RUNNING", message: "runs" }] });
  expect(error.problemOf("filter")).toBe("no");
  expect(error.problemOf("parent")).toBeUndefined();
  expect(errorOfStatus("{")).toMatchObject({ reason: "SERVER_LOST", http: 0 });
});
