import { writeFile } from "node:fs/promises";
import type { Page } from "@playwright/test";
import { still } from "../fixtures/clouds.ts";
import { asking as test, expect } from "../fixtures/test.ts";

// A page asks at once for what it shows, and who is asking.
const nobody = ["401 GET /v1/caller", /^401 GET \/v1\//];

async function signIn(page: Page, text: string): Promise<void> {
  await page.getByLabel("Token").fill(text);
  await page.getByRole("button", { name: "Sign in", exact: true }).click();
}

test("a wrong token is told, a good one opens what was asked for, a revoked one ends it", async ({ page, server, tokens, expected }) => {
  expected.refusals = nobody;
  await page.goto(`${server.url}/#/${still.core}`);
  await signIn(page, "wrong");
  await expect(page.getByRole("alert")).toContainText("The server does not accept this token.");
  await signIn(page, tokens.anna);
  await expect(page.getByRole("link", { name: "Change image" })).toBeVisible();
  await expect(page.getByText("anna")).toBeVisible();
  expect(new URL(page.url()).hash).toBe(`#/${still.core}`);

  await writeFile(tokens.file, "[]\n", { mode: 0o600 });
  await expect(page.getByText("Your sign-in has ended.")).toBeVisible({ timeout: 20_000 });
  expect(new URL(page.url()).hash).toBe(`#/${still.core}`);
  expect(await page.evaluate(() => sessionStorage.getItem("notebookd.token"))).toBeNull();
});

test("who may only look sees no way to change, and is told why", async ({ page, server, tokens, expected }) => {
  expected.refusals = nobody;
  await page.goto(`${server.url}/#/${still.core}`);
  await signIn(page, tokens.ben);
  await expect(page.getByRole("heading", { level: 1 })).toBeVisible();
  await expect(page.getByText("ben")).toBeVisible();
  await expect(page.getByRole("link", { name: "Change image" })).toHaveCount(0);
  await page.goto(`${server.url}/#/${still.core}/change`);
  await expect(page.getByText("You may not change images here")).toBeVisible();
});

test("who has no role is told so", async ({ page, server, tokens, expected }) => {
  expected.refusals = nobody;
  await page.goto(server.url);
  await signIn(page, tokens.carl);
  await expect(page.getByRole("heading", { name: "You have no role yet" })).toBeVisible();
  await expect(page.getByText("carl").first()).toBeVisible();
});
