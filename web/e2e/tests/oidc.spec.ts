import type { Page } from "@playwright/test";
import { still } from "../fixtures/clouds.ts";
import type { Issuer } from "../fixtures/issuer.ts";
import { inTheWay, narrow, show, wide } from "../fixtures/looks.ts";
import { asking as test, expect } from "../fixtures/test.ts";

// A page asks at once for what it shows, and who is asking.
const nobody = ["401 GET /v1/caller", /^401 GET \/v1\//];
const kept = (page: Page) => page.evaluate(() => ({ token: sessionStorage.getItem("notebookd.token"), flow: sessionStorage.getItem("notebookd.oidc") }));
const go = (page: Page) => page.getByRole("button", { name: /^Continue with 127\.0\.0\.1:/ }).click();
/** Whether people came to be asked nothing (none) or whatever is needed (null), one after the other. */
const prompts = (issuer: Issuer) => issuer.came.map((q) => q.get("prompt"));
const change = (page: Page) => page.getByRole("link", { name: "Change image" });

test("an issuer signs in, and out goes who signs out", async ({ page, context, server, issuer, expected }) => {
  expected.refusals = nobody;
  await page.goto(`${server.url}/#/${still.core}`);
  await go(page);
  await expect(change(page)).toBeVisible();
  await expect(page.getByText("oidc:dora")).toBeVisible();
  // The code is in no address, and none that one could go back to has it.
  expect(page.url()).toBe(`${server.url}/#/${still.core}`);
  const { entries } = await (await context.newCDPSession(page)).send("Page.getNavigationHistory");
  expect(entries.filter((e) => /code=|verifier|token/.test(e.url))).toEqual([]);
  expect(issuer.came).toHaveLength(1);
  expect(issuer.came[0]!.get("redirect_uri")).toBe(`${server.url}/`);
  expect(issuer.exchanged).toBe(1);

  await page.reload();
  await expect(change(page)).toBeVisible();
  expect(issuer.came, "a reload asks nobody").toHaveLength(1);

  await page.getByRole("button", { name: "Sign out" }).click();
  await expect(page.getByRole("heading", { name: "Sign in", exact: true })).toBeVisible();
  expect(await kept(page)).toEqual({ token: null, flow: null });
});

test("who is turned away by the issuer is told so, and may try again", async ({ page, server, issuer, expected }) => {
  expected.refusals = nobody;
  issuer.refuse = "access_denied";
  await page.goto(`${server.url}/#/${still.core}`);
  await go(page);
  await expect(page.getByRole("alert")).toContainText("The issuer did not sign you in.");
  await expect(page.getByRole("alert")).toContainText("access_denied: told by the issuer");
  expect(page.url()).toBe(`${server.url}/#/${still.core}`);
  expect(issuer.exchanged).toBe(0);
  expect(await kept(page)).toEqual({ token: null, flow: null });
  issuer.refuse = undefined;
  await go(page);
  await expect(change(page)).toBeVisible();
});

test("an answer with another state, another nonce, or to no question is not used", async ({ page, server, issuer, expected }) => {
  expected.refusals = nobody;
  issuer.state = "of-somebody-else";
  await page.goto(server.url);
  await go(page);
  await expect(page.getByRole("alert")).toContainText("The issuer's answer is not as it must be and was not used.");
  expect(issuer.exchanged, "its code is not exchanged").toBe(0);

  issuer.state = undefined;
  issuer.nonce = "of-somebody-else";
  await go(page);
  await expect(page.getByRole("alert")).toContainText("nonce");
  expect(issuer.exchanged).toBe(1);
  expect(await kept(page)).toEqual({ token: null, flow: null });

  await page.goto(`${server.url}/?code=stolen&state=guessed`);
  await expect(page.getByRole("alert")).toContainText("belongs to no sign-in that this tab has begun");
  expect(page.url()).toBe(`${server.url}/`);
  expect(issuer.exchanged).toBe(1);
});

test("a sign-in is renewed before it ends, and told when it has ended", async ({ page, server, issuer, expected }) => {
  expected.refusals = nobody;
  issuer.lifetime = 200;
  await page.goto(`${server.url}/#/${still.core}`);
  await go(page);
  const ends = page.getByText(/^Your sign-in ends in 00:0[0-3]:\d\d\.$/);
  await expect(ends).toBeVisible();
  issuer.lifetime = 3600;
  // What the page asks first when it is back, with the old token, is answered last.
  const old = `Bearer ${(await kept(page)).token}`;
  let renewed = () => {};
  const whenRenewed = new Promise<void>((resolve) => (renewed = resolve));
  await page.route("**/v1/caller", async (route) => {
    if (route.request().headers()["authorization"] === old) {
      await whenRenewed;
      return await route.continue();
    }
    await route.fulfill({ response: await route.fetch() });
    renewed();
  });
  const late = page.waitForEvent("requestfinished", (r) => r.url().endsWith("/v1/caller") && r.headers()["authorization"] === old);
  await page.getByRole("button", { name: "Renew it now" }).click();
  await expect.poll(() => issuer.exchanged).toBe(2);
  await expect(change(page)).toBeVisible();
  await late;
  await page.evaluate(() => new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve))));
  await expect(ends).toBeHidden();
  await page.unroute("**/v1/caller");
  expect(prompts(issuer)).toEqual([null, "none"]);

  // One whom the issuer has to ask first is asked.
  await page.getByRole("button", { name: "Sign out" }).click();
  issuer.lifetime = 200;
  await go(page);
  await expect(ends).toBeVisible();
  issuer.refuseSilent = "login_required";
  issuer.lifetime = 6;
  await page.getByRole("button", { name: "Renew it now" }).click();
  await expect.poll(() => issuer.exchanged).toBe(4);
  await expect(change(page)).toBeVisible();
  expect(prompts(issuer)).toEqual([null, "none", null, "none", null]);

  await expect(page.getByText("Your sign-in has ended.")).toBeVisible({ timeout: 20_000 });
  await expect(change(page)).toHaveCount(0);
  for (const look of [wide, narrow]) {
    await show(page, look);
    expect(await inTheWay(page)).toEqual([]);
  }
  expect(new URL(page.url()).hash).toBe(`#/${still.core}`);
  expect(await kept(page)).toEqual({ token: null, flow: null });
});
