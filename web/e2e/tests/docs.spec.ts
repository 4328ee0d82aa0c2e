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
