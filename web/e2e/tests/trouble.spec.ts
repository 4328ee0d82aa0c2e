import { still } from "../fixtures/clouds.ts";
import { another } from "../fixtures/scenes.ts";
import { expect, test } from "../fixtures/test.ts";

const page404 = { status: 404, contentType: "text/html", body: "<html><h1>nginx</h1></html>" };

test("the locations are there though the clouds cannot be read, that is told, and it recovers", async ({ page, server, expected }) => {
  expected.refusals = ["404 GET /v1/clouds"];
  await page.route("**/v1/clouds", (route) => route.fulfill(page404));
  await page.goto(server.url);
  const strip = page.getByRole("region", { name: "Locations" });
  await expect(strip.getByRole("status")).toContainText("How the clouds do cannot be read. The server cannot be reached.");
  await expect(strip.getByRole("button", { name: "core / xb3" })).toContainText("live"); // as the watch has told
  await page.getByRole("link", { name: "Clouds" }).click();
  await expect(page.getByRole("alert")).toContainText("The server cannot be reached.");
  await page.getByRole("link", { name: "Notebooks" }).click();
  // Asked at once when somebody wants it, and again by itself.
  const answered = page.waitForResponse((r) => r.url().endsWith("/v1/clouds"), { timeout: 1_500 });
  await strip.getByRole("button", { name: "Try again" }).click();
  await answered;
  await expect(strip.getByRole("status")).toBeVisible();
  await page.unroute("**/v1/clouds");
  await expect(strip.getByRole("status")).toHaveCount(0);

  // Nor does it take anything away while it fails only once.
  await page.route("**/v1/clouds", (route) => route.fulfill(page404), { times: 1 });
  await page.reload();
  await expect(strip.getByRole("button", { name: "core / xb3" })).toContainText("live");
  await expect(strip.getByRole("status")).toHaveCount(0);
});

test("what a proxy refuses is not what the server refuses", async ({ page, server, expected }) => {
  expected.refusals = ["403 GET /v1/notebooks:watch"];
  await page.route("**/v1/notebooks:watch*", (route) => route.fulfill({ ...page404, status: 403 }), { times: 2 });
  await page.goto(server.url);
  await expect(page.getByText("The server cannot be reached", { exact: true })).toBeVisible();
  await expect(page.locator('.nb-sums[data-complete="true"]')).toContainText("notebooks");
  await expect(page.getByText("The server cannot be reached", { exact: true })).toBeHidden();
});

test("the chip for what expires soon takes its own place in the filter", async ({ page, server }) => {
  await page.goto(`${server.url}/#/?filter=${encodeURIComponent("expire_time < 2026-01-01T00:00:00Z AND state = RUNNING")}`);
  const filter = page.getByRole("combobox", { name: "Filter" });
  await expect(filter).toHaveValue(/^expire_time < 2026-01-01/);
  await page.getByRole("button", { name: "Expiring within a day" }).click();
  await expect(filter).toHaveValue(/^expire_time < \d{4}-\d\d-\d\dT\d\d:\d\d:00Z AND state = RUNNING$/);
  await expect(filter).not.toHaveValue(/2026-01-01/);
});

test.describe("on a phone", () => {
  test.use({ viewport: { width: 390, height: 844 } });

  test("rows are sorted in both directions", async ({ page, server }) => {
    await page.goto(server.url);
    await page.getByLabel("Sort by").selectOption("Age");
    const first = page.locator(".nb-row a").first();
    const byAge = (await server.notebooks({ orderBy: "create_time" })).map((n) => n.name);
    await expect(first).toHaveAttribute("title", byAge[0]!);
    await page.getByLabel("Descending").check();
    expect(new URL(page.url()).hash).toContain("sort=-created");
    const backwards = (await server.notebooks({ orderBy: "create_time desc" })).map((n) => n.name);
    await expect(first).toHaveAttribute("title", backwards[0]!);
    await page.getByLabel("Sort by").selectOption("Cloud / location");
    expect(new URL(page.url()).hash).toContain("sort=-location");
    await page.getByLabel("Descending").uncheck();
    expect(new URL(page.url()).hash).toContain("sort=location");
  });
});

test.describe("where the browser speaks Chinese", () => {
  test.use({ locale: "zh-CN" });

  test("so does what the server says in words of its own", async ({ page, server, expected }) => {
    expected.refusals = ["400 GET /v1/notebooks:watch", "400 GET /v1/imageChanges"];
    const image = await another(server, still.scnet);
    await page.goto(`${server.url}/#/${still.scnet}/change?image=${encodeURIComponent(image)}`);
    await page.getByRole("button", { name: "查看计划" }).click();
    const plan = page.getByRole("region", { name: "计划" });
    for (const text of ["用新镜像创建另一个笔记本实例", "释放旧实例"]) await expect(plan.locator("ol").getByText(text)).toBeVisible();
    await expect(plan.getByText("需要一张空闲的加速卡")).toBeVisible();
    await expect(plan.locator("[lang=en]")).toHaveCount(0);

    await page.goto(`${server.url}/#/?filter=${encodeURIComponent("state = RUNS")}`);
    await expect(page.getByRole("alert")).toContainText('state："RUNS" 不在可选值之列');
    await page.goto(`${server.url}/#/history?filter=${encodeURIComponent("phase = (x")}`);
    await expect(page.getByRole("alert")).toContainText("此处应为单个值，不能是一组");
  });
});
