import AxeBuilder from "@axe-core/playwright";
import { still } from "../fixtures/clouds.ts";
import { expect, test } from "../fixtures/test.ts";

const views = { notebooks: "/", grouped: "/?group=location", clouds: "/clouds", notebook: `/${still.scnet}`, change: `/${still.scnet}/change`, history: "/history" };

for (const colorScheme of ["light", "dark"] as const) {
  for (const width of [1440, 390]) {
    test(`nothing is in the way of a screen reader, ${colorScheme}, ${width} px`, async ({ page, server }) => {
      await page.emulateMedia({ colorScheme, reducedMotion: "reduce" });
      await page.setViewportSize({ width, height: 844 });
      for (const [view, at] of Object.entries(views)) {
        await page.goto(`${server.url}/#${at}`);
        await expect(page.getByRole("heading", { level: 1 })).toBeVisible();
        if (at === "/" || view === "grouped") await expect(page.locator('.nb-sums[data-complete="true"]')).toBeVisible();
        await expect(page.getByText("Loading …")).toHaveCount(0);
        const { violations } = await new AxeBuilder({ page }).analyze();
        const bad = violations.filter((v) => v.impact === "serious" || v.impact === "critical").map((v) => `${view}: ${v.id} ${v.nodes.map((n) => n.html.slice(0, 120)).slice(0, 3).join(" | ")}`);
        expect(bad).toEqual([]);
        expect(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), `${view} is no wider than the screen`).toBe(true);
      }
    });
  }
}

test.describe("where the browser speaks Chinese", () => {
  test.use({ locale: "zh-CN" });

  test("so does the page, until somebody chooses, which is remembered", async ({ page, server }) => {
    await page.goto(server.url);
    await expect(page.locator("html")).toHaveAttribute("lang", "zh-CN");
    await expect(page.getByRole("heading", { level: 1 })).toHaveText("笔记本");
    await expect(page.getByText(/共 \d+ 个笔记本/)).toBeVisible();
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
