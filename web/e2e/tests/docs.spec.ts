import { expect, test } from "../fixtures/test.ts";

test("the API can be read and tried out", async ({ page, server }) => {
  await page.goto(server.url);
  await page.getByRole("link", { name: "API" }).click();
  const operation = page.locator("#operations-CloudService-CloudService_ListClouds");
  await expect(operation).toBeVisible({ timeout: 20_000 });
  await operation.getByRole("button").first().click();
  await operation.getByRole("button", { name: "Execute" }).click();
  await expect(operation.locator(".live-responses-table").first()).toContainText("clouds/core");
});

test.describe("to a browser that prefers Chinese", () => {
  test.use({ locale: "zh-CN" });

  test("the API is described in Chinese, and in English on request", async ({ page, server }) => {
    await page.goto(`${server.url}/docs/`);
    await expect(page).toHaveTitle(/接口文档/);
    await expect(page.getByText("用一套 API 统一管理多家 AI 云上的 GPU 笔记本实例。")).toBeVisible({ timeout: 20_000 });
    await page.getByRole("link", { name: "English" }).click();
    await expect(page.locator("html")).toHaveAttribute("lang", "en");
    await expect(page.getByRole("link", { name: "简体中文" })).toBeVisible();
  });
});
