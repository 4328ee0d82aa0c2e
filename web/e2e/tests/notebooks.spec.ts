import type { Page } from "@playwright/test";
import { still } from "../fixtures/clouds.ts";
import type { Server } from "../fixtures/server.ts";
import { Tap } from "../fixtures/tap.ts";
import { expect, test } from "../fixtures/test.ts";

// High enough for every row: those out of view need not be there.
test.use({ viewport: { width: 1440, height: 2400 } });

const table = (page: Page) => page.getByRole("table", { name: "Notebooks, a live table" });
const sums = (page: Page) => page.locator('.nb-sums[data-complete="true"]');

/** The rows as `name state`, as the table and as the API has them. */
const rows = async (page: Page) =>
  await table(page).locator(".nb-row").evaluateAll((all) => all.map((r) => `${r.querySelector("a")?.title} ${r.querySelector(".badge")?.textContent}`));
const truth = async (server: Server) =>
  (await server.notebooks()).map((n) => `${n.name} ${(n.state ?? "STATE_UNSPECIFIED").replace("STATE_", "").replace("UNSPECIFIED", "unknown").toLowerCase()}`);
const names = async (page: Page) => await table(page).locator(".nb-row a").evaluateAll((links) => links.map((a) => a.getAttribute("title")));

test("the table is what the API says, after everything that happened", async ({ page, server, clouds }) => {
  await page.goto(server.url);
  await expect(sums(page)).toContainText("notebooks");
  const before = await truth(server);
  await expect.poll(() => rows(page)).toEqual(before);
  for (let i = 0; i < 5; i++) {
    await clouds.step("core", 10);
    await clouds.step("scnet", 10);
  }
  await expect.poll(() => truth(server)).not.toEqual(before);
  await expect.poll(async () => (JSON.stringify(await rows(page)) === JSON.stringify(await truth(server)) ? "the same" : await rows(page))).toBe("the same");
});

test("a filter is typed with proposals, and its address can be shared", async ({ page, server, context }) => {
  await page.goto(server.url);
  const filter = page.getByRole("combobox", { name: "Filter" });
  await filter.pressSequentially("sta");
  await expect(page.getByRole("listbox", { name: "Proposals" }).getByRole("option", { name: "state", exact: true })).toBeVisible();
  await page.keyboard.press("ArrowDown");
  await page.keyboard.press("Enter");
  await expect(filter).toHaveValue("state ");
  await filter.pressSequentially("= ST");
  await expect(page.getByRole("option", { name: "STOPPED" })).toBeVisible();
  await page.keyboard.press("Escape");
  await expect(page.getByRole("listbox", { name: "Proposals" })).toBeHidden();
  await filter.fill("state = STOPPED");
  await page.keyboard.press("Enter");
  const want = (await server.notebooks({ filter: "state = STOPPED" })).map((n) => n.name);
  await expect(sums(page)).toContainText(`${want.length} notebooks match`);
  await expect.poll(() => names(page)).toEqual(want);
  expect(new URL(page.url()).hash).toContain("filter=state+%3D+STOPPED");

  const other = await context.newPage();
  await other.goto(page.url());
  await expect(other.getByRole("combobox", { name: "Filter" })).toHaveValue("state = STOPPED");
  await expect.poll(() => names(other)).toEqual(want);
  await other.close();

  await page.goBack();
  await expect(sums(page)).toContainText(/^\d+ notebooks(?! match)/);
});

test("a wrong filter is told with its place, and the rows stay", async ({ page, server, expected }) => {
  expected.refusals = ["400 GET /v1/notebooks:watch"];
  await page.goto(server.url);
  await expect(sums(page)).toContainText("notebooks");
  const before = await names(page);
  const filter = page.getByRole("combobox", { name: "Filter" });
  await filter.fill("display_name = 笔 AND stat = RUNNING");
  await page.keyboard.press("Enter");
  const fault = page.getByRole("alert");
  await expect(fault).toContainText("The filter cannot be understood. (at character 22)");
  await expect(fault.locator("mark")).toHaveText("s");
  await expect(fault).toContainText("there is no such field");
  await expect(filter).toHaveAttribute("aria-invalid", "true");
  expect(await names(page)).toEqual(before);
});

test("a new filter leaves the rows there, as busy, until it has its own", async ({ page, server }) => {
  await page.goto(server.url);
  await expect(sums(page)).toContainText("notebooks");
  const before = await names(page);
  let answer = () => {};
  const answered = new Promise<void>((resolve) => (answer = resolve));
  await page.route("**/v1/notebooks:watch?filter=*", async (route) => {
    await answered;
    await route.continue();
  });
  await expect(table(page)).toHaveAttribute("aria-busy", "false");
  const fewest = page.evaluate(
    () =>
      new Promise<number>((resolve) => {
        let fewest = Infinity;
        const table = document.querySelector(".nb-table")!;
        const observer = new MutationObserver(() => {
          const rows = table.querySelectorAll(".nb-row").length;
          fewest = Math.min(fewest, rows);
          if (table.getAttribute("aria-busy") === "true") table.setAttribute("data-was-busy", "");
          else if (table.hasAttribute("data-was-busy")) {
            observer.disconnect();
            resolve(fewest);
          }
        });
        observer.observe(table, { attributes: true, attributeFilter: ["aria-busy"], childList: true, subtree: true });
      }),
  );
  await page.getByRole("combobox", { name: "Filter" }).fill("state = STOPPED");
  await page.keyboard.press("Enter");
  await expect(table(page)).toHaveAttribute("aria-busy", "true");
  expect(await names(page)).toEqual(before);
  answer();
  const want = (await server.notebooks({ filter: "state = STOPPED" })).map((n) => n.name);
  await expect.poll(() => names(page)).toEqual(want);
  expect(await fewest).toBeGreaterThanOrEqual(want.length);
});

test("the focus is not on another notebook when its row is scrolled away", async ({ page, server }) => {
  await page.setViewportSize({ width: 1440, height: 520 });
  await page.goto(server.url);
  await expect(sums(page)).toContainText("notebooks");
  const scroller = table(page).locator(".nb-scroll");
  await table(page).locator(".nb-row a").first().focus();
  await scroller.evaluate((element) => (element.scrollTop = element.scrollHeight));
  const last = (await server.notebooks()).at(-1)!.name;
  await expect(table(page).locator(`a[title="${last}"]`)).toBeVisible();
  await expect(scroller).toBeFocused();
  await page.keyboard.press("Home");
  await expect.poll(() => scroller.evaluate((element) => element.scrollTop)).toBe(0);
});

test("rows are grouped, folded and sorted", async ({ page, server }) => {
  await page.goto(`${server.url}/#/?group=state`);
  const running = (await server.notebooks({ filter: "state = RUNNING" })).map((n) => n.name);
  const head = page.getByRole("button", { name: "running", exact: true });
  await expect(head).toHaveAttribute("aria-expanded", "true");
  await head.click();
  await expect(head).toHaveAttribute("aria-expanded", "false");
  await expect.poll(async () => (await names(page)).filter((n) => running.includes(n ?? ""))).toEqual([]);

  // An address may bring another filter and another grouping at once.
  await page.evaluate(() => void (location.hash = "#/?filter=state+%3D+STOPPED&group=location"));
  await expect(sums(page)).toContainText("notebooks match");
  await expect(page.getByRole("button", { name: "core / xb3", exact: true }).and(page.locator("[aria-expanded]"))).toBeVisible();
  await page.evaluate(() => void (location.hash = "#/"));
  await expect(sums(page)).not.toContainText("match");

  await page.getByRole("button", { name: "Age", exact: true }).click();
  await expect(page.getByRole("columnheader", { name: "Age", exact: true })).toHaveAttribute("aria-sort", "ascending");
  const byAge = (await server.notebooks({ orderBy: "create_time" })).map((n) => n.name);
  await expect.poll(() => names(page)).toEqual(byAge);
});

test("a cloud that fails is shown, and so is that it is back", async ({ page, server, clouds }) => {
  await page.goto(server.url);
  const place = page.getByRole("button", { name: "core / xb3" });
  await expect(place).toContainText("live");
  await clouds.fault("core", { mode: "refuse" });
  await expect(place).toContainText("unreachable", { timeout: 20_000 });
  const row = table(page).locator(".nb-row", { has: page.locator(`a[title="${still.core}"]`) });
  await expect(row).toContainText("As last seen: core/xb3 is unreachable");

  await page.getByRole("link", { name: "Clouds" }).click();
  const location = page.getByRole("article", { name: /xb3/ });
  await expect(location).toContainText("unreachable");
  await expect(location).toContainText(/left alone for a while|cannot be reached/);
  await expect(location).toContainText(/read\s*open|half open/, { timeout: 20_000 });
  await clouds.noFaults("core");
  await expect(location.locator(".badge").first()).toHaveText("live", { timeout: 20_000 });
});

test("a lost server is shown and survived, and the watch goes on where it was", async ({ page, server, clouds, expected }) => {
  await using tap = await Tap.start(server);
  expected.elsewhere.push(tap.url);
  await page.goto(tap.url);
  await expect(sums(page)).toContainText("notebooks");
  const before = await truth(server);
  expect(before.length).toBeGreaterThan(10);
  await expect.poll(() => rows(page)).toEqual(before);
  expect(tap.watches).toHaveLength(1);
  const [first] = tap.watches;
  const snapshot = first!.frames;
  expect(first!.after).toBeUndefined();
  expect(snapshot.filter((f) => f.notebook?.initial)).toHaveLength(before.length);

  expected.away = true;
  await server.stop();
  await expect(page.getByText("The server cannot be reached")).toBeVisible();
  expect(await rows(page)).toEqual(before);
  const last = first!.frames.findLast((f) => f.resumeToken)?.resumeToken;
  await clouds.step("core", 8);
  await server.start();
  await expect(page.getByText("The server cannot be reached")).toBeHidden({ timeout: 30_000 });
  await expect.poll(() => truth(server)).not.toEqual(before);
  await expect.poll(async () => JSON.stringify(await rows(page)) === JSON.stringify(await truth(server)), { timeout: 20_000 }).toBe(true);

  // It was told what has changed and nothing else: no reset, no second snapshot.
  expect(tap.watches).toHaveLength(2);
  const second = tap.watches[1]!;
  expect(second.after).toBe(last);
  expect(second.frames.filter((f) => f.reset)).toEqual([]);
  expect(second.frames.filter((f) => f.notebook?.initial)).toEqual([]);
  const changed = new Set(second.frames.flatMap((f) => f.notebook?.notebook?.name ?? []));
  expect(changed.size).toBeGreaterThan(0);
  expect(changed.size).toBeLessThan(before.length / 2);
  expect(second.frames.filter((f) => !f.resumeToken), "frames after which one could not go on").toEqual([]);
});

test("what the policy forbids is noticed, in the page and in its worker", async ({ page, server, expected }) => {
  await page.goto(server.url);
  await expect(sums(page)).toContainText("notebooks");
  const ask = async () => await fetch("http://127.0.0.2:1/").then(() => "answered", () => "not allowed");
  expect(await page.evaluate(ask)).toBe("not allowed");
  await expect.poll(() => expected.faults.join("\n")).toContain("policy: connect-src http://127.0.0.2:1/");
  expected.faults.splice(0);
  expect(page.workers()).toHaveLength(1);
  expect(await page.workers()[0]!.evaluate(ask)).toBe("not allowed");
  await expect.poll(() => expected.faults.join("\n")).toContain("policy: connect-src http://127.0.0.2:1/");
  expected.faults.splice(0);
});
