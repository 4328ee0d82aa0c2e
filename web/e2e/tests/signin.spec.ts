import { writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { mkdtempSync } from "node:fs";
import AxeBuilder from "@axe-core/playwright";
import { still } from "../fixtures/clouds.ts";
import { expect, test, tokens } from "../fixtures/test.ts";

const file = path.join(mkdtempSync(path.join(tmpdir(), "notebookd-console-tokens-")), "tokens.yaml");
let token: Record<string, string>;

test.describe.configure({ mode: "serial" });
test.beforeEach(async () => {
  token = await tokens(file, { anna: "operators", ben: "viewers", carl: "strangers" });
});
test.use({
  serverOptions: {
    config: `auth:
  tokens_file: ${file}
  policy:
    - {role: viewer, groups: [viewers]}
    - {role: operator, groups: [operators]}`,
  },
});

async function signIn(page: import("@playwright/test").Page, text: string): Promise<void> {
  await page.getByLabel("Token").fill(text);
  await page.getByRole("button", { name: "Sign in", exact: true }).click();
}

test("a wrong token is told, a good one opens what was asked for, a revoked one ends it", async ({ page, server }) => {
  await page.goto(`${server.url}/#/${still.core}`);
  await signIn(page, "wrong");
  await expect(page.getByRole("alert")).toContainText("The server does not accept this token.");
  const { violations } = await new AxeBuilder({ page }).analyze();
  expect(violations.filter((v) => v.impact === "serious" || v.impact === "critical").map((v) => v.id)).toEqual([]);
  await signIn(page, token["anna"]!);
  await expect(page.getByRole("link", { name: "Change image" })).toBeVisible();
  await expect(page.getByText("anna")).toBeVisible();
  expect(new URL(page.url()).hash).toBe(`#/${still.core}`);

  await writeFile(file, "[]\n", { mode: 0o600 });
  await expect(page.getByText("Your sign-in has ended.")).toBeVisible({ timeout: 20_000 });
  expect(new URL(page.url()).hash).toBe(`#/${still.core}`);
  expect(await page.evaluate(() => sessionStorage.getItem("notebookd.token"))).toBeNull();
});

test("who may only look sees no way to change, and is told why", async ({ page, server }) => {
  await page.goto(`${server.url}/#/${still.core}`);
  await signIn(page, token["ben"]!);
  await expect(page.getByRole("heading", { level: 1 })).toBeVisible();
  await expect(page.getByText("ben")).toBeVisible();
  await expect(page.getByRole("link", { name: "Change image" })).toHaveCount(0);
  await page.goto(`${server.url}/#/${still.core}/change`);
  await expect(page.getByText("You may not change images here")).toBeVisible();
});

test("who has no role is told so", async ({ page, server }) => {
  await page.goto(server.url);
  await signIn(page, token["carl"]!);
  await expect(page.getByRole("heading", { name: "You have no role yet" })).toBeVisible();
  await expect(page.getByText("carl").first()).toBeVisible();
});
