import { inTheWay, narrow, show, wide } from "../fixtures/looks.ts";
import { changes, outage, recreations, signIn, table, type Scenes, type Stage } from "../fixtures/scenes.ts";
import { asking, expect, test } from "../fixtures/test.ts";
import { english, strings } from "../fixtures/words.ts";

// What is found here is told by name, and a picture is taken of it.
test.use({ trace: "off" });

/**
 * play goes from scene to scene. In each nothing is in the way of a screen reader or
 * wider than the screen, wide and light or narrow and dark, and all is Chinese where it should be.
 */
async function play<S extends Stage>(scenes: Scenes<S>, stage: S, token?: string, names: string[] = []): Promise<void> {
  const { page, server, expected } = stage;
  const told = new Set(names);
  for (const [name, see] of Object.entries(scenes)) {
    await test.step(name, async () => {
      await see(stage);
      for (const look of [wide, narrow]) {
        await show(page, look);
        expect.soft(await inTheWay(page), `${name}, ${look.width} px, ${look.colorScheme}`).toEqual([]);
        expect.soft(await page.evaluate(() => document.documentElement.scrollWidth - innerWidth), `${name}, by how much it is wider than ${look.width} px`).toBeLessThanOrEqual(0);
      }
      if (!expected.away) for (const text of strings(await server.all(token))) told.add(text);
      await show(page, { ...wide, language: "zh" });
      expect.soft(await english(page, told), `${name}, words that are not Chinese`).toEqual([]);
      await show(page, wide);
    });
  }
}

test.describe("everybody can read", () => {
  test.describe.configure({ timeout: 120_000 }); // they are a dozen views each
  test("the table, clouds and notebooks", async ({ page, server, clouds, expected }) => await play(table, { page, server, clouds, expected }));
  test("image changes", async ({ page, server, clouds, expected }) => await play(changes, { page, server, clouds, expected }));
  test("how a notebook is replaced", async ({ page, server, clouds, expected }) => await play(recreations, { page, server, clouds, expected }));
  test("clouds that fail and a server that is lost", async ({ page, server, clouds, expected }) => await play(outage, { page, server, clouds, expected }));
  asking("how to sign in", async ({ page, server, clouds, expected, tokens, issuer }) => {
    const names = ["ben", "ben、viewers", "您的身份是 ben", "carl", "carl、strangers", "strangers", "复制：carl", "oidc:dora", "oidc:operators", "access_denied: told by the issuer"];
    await play(signIn, { page, server, clouds, expected, tokens, issuer }, tokens.anna, names);
  });
});

test.describe("where the browser speaks Chinese", () => {
  test.use({ locale: "zh-CN" });

  test("so does the page, until somebody chooses, which is remembered", async ({ page, server }) => {
    await page.goto(server.url);
    await expect(page.locator("html")).toHaveAttribute("lang", "zh-CN");
    await expect(page.getByRole("heading", { level: 1 })).toHaveText("笔记本实例");
    await expect(page.getByText(/共 \d+ 个笔记本实例/)).toBeVisible();
    for (const at of ["/clouds", "/history"]) {
      await page.goto(`${server.url}/#${at}`);
      await expect(page.getByRole("heading", { level: 1 })).toHaveText(/^[\p{Script=Han}]+$/u);
    }
    await page.getByRole("button", { name: "Show in English" }).click();
    await expect(page.locator("html")).toHaveAttribute("lang", "en");
    await page.reload();
    await expect(page.getByRole("heading", { level: 1 })).toHaveText("Image changes");
  });
});

test("light and dark are the system's until somebody chooses", async ({ page, server }) => {
  await page.emulateMedia({ colorScheme: "dark" });
  await page.goto(server.url);
  const ground = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  await expect.poll(ground).toBe("rgb(17, 21, 27)");
  await page.getByRole("button", { name: /^Theme/ }).click();
  await expect.poll(ground).toBe("rgb(246, 247, 249)");
  await page.reload();
  await expect.poll(ground).toBe("rgb(246, 247, 249)");
});

test("everything can be reached by keyboard", async ({ page, server }) => {
  await page.goto(server.url);
  await expect(page.locator('.nb-sums[data-complete="true"]')).toBeVisible();
  await page.keyboard.press("Tab");
  await expect(page.getByRole("link", { name: "Skip to the content" })).toBeFocused();
  await page.keyboard.press("Enter");
  await expect(page.locator("main")).toBeFocused();
  const filter = page.getByRole("combobox", { name: "Filter" });
  for (let i = 0; i < 20 && !(await filter.evaluate((e) => e === document.activeElement)); i++) await page.keyboard.press("Tab");
  await expect(filter).toBeFocused();
  await page.keyboard.type("state = STOPPED");
  await page.keyboard.press("Escape");
  await page.keyboard.press("Enter");
  await expect(page.locator(".nb-sums")).toContainText("match");
  const first = page.locator(".nb-row a").first();
  for (let i = 0; i < 40 && !(await first.evaluate((e) => e === document.activeElement)); i++) await page.keyboard.press("Tab");
  await expect(first).toBeFocused();
  await page.keyboard.press("Enter");
  await expect(page).toHaveURL(/notebooks\/[^/]+$/);
});
