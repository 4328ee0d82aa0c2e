import { still } from "../fixtures/clouds.ts";
import { another, carryOut } from "../fixtures/scenes.ts";
import { expect, test } from "../fixtures/test.ts";

test("an image is changed in place: plan, ticks, progress, history", async ({ page, server, clouds }) => {
  // A notebook that runs brings a warning with it.
  await clouds.set("core", { allow_running: true });
  const running = (await server.notebooks({ filter: 'state = RUNNING AND cloud = core AND image.type:*' }))[0]!;
  await page.goto(`${server.url}/#/${running.name}`);
  await page.getByRole("link", { name: "Change image" }).click();
  await page.getByLabel("New image").fill("registry.example.com/team/trained:7");
  await page.getByLabel("Kind of image").selectOption("custom");
  await page.getByLabel(/^Reason/).fill("newer weights");
  await page.getByRole("button", { name: "Show the plan" }).click();
  const plan = page.getByRole("region", { name: "Plan" });
  await expect(plan).toContainText("registry.example.com/team/trained:7");
  const change = plan.getByRole("button", { name: "Change image" });
  await expect(change).toBeDisabled();
  for (const box of await plan.getByRole("checkbox").all()) {
    expect(await box.isChecked()).toBe(false);
    await expect(change).toBeDisabled();
    await box.check();
  }
  await change.click();
  await expect(page.getByText("The image was changed.")).toBeVisible({ timeout: 20_000 });
  expect((await server.notebook(running.name))?.image?.uri).toBe("registry.example.com/team/trained:7");

  await page.getByRole("link", { name: "Image changes", exact: true }).click();
  const entry = page.getByRole("article").first();
  await expect(entry).toContainText("succeeded");
  await expect(entry).toContainText("newer weights");
  await expect(entry).toContainText("127.0.0.1");
  await expect(entry).toContainText("trained:7");
});

test("a cloud that recreates: the new notebook takes the old one's place", async ({ page, server, clouds }) => {
  await clouds.set("scnet", { transition: "100ms" });
  const old = (await server.notebook(still.scnet))!;
  const image = await another(server, still.scnet);
  await page.goto(`${server.url}/#/${still.scnet}/change`);
  // What is proposed is for the same kind of accelerator.
  const proposed = page.locator(`datalist option[value="${image}"]`);
  await expect(proposed).toHaveCount(1);
  await expect(page.locator('datalist option[value*="/gpu/"]')).toHaveCount(0);
  await page.getByLabel("New image").fill(image);
  await page.getByRole("button", { name: "Show the plan" }).click();
  const plan = page.getByRole("region", { name: "Plan" });
  await expect(plan).toContainText("Another notebook is made");
  const boxes = await plan.getByRole("checkbox").all();
  expect(boxes.length).toBeGreaterThan(2);
  for (const box of boxes) await box.check();
  await plan.getByRole("button", { name: "Change image" }).click();
  await expect(page.getByText("Another notebook has taken the old one's place.")).toBeVisible({ timeout: 30_000 });
  await page.getByRole("link", { name: "To the new notebook" }).click();
  await expect(page.getByRole("heading", { level: 1 })).toHaveText(old.displayName!);
  const [done] = await server.imageChanges(`notebook = "${still.scnet}"`);
  expect(done).toMatchObject({ phase: "PHASE_SUCCEEDED", toImage: image });
  expect(new URL(page.url()).hash).toBe(`#/${done!.newNotebook}`);
});

test("a refusal of the cloud is told, and the image stays", async ({ page, server, clouds }) => {
  await clouds.fault("core", { op: "change_image", mode: "code", code: "1400", effect: false });
  const before = (await server.notebook(still.core))!.image?.uri;
  await page.goto(`${server.url}/#/${still.core}/change`);
  await page.getByLabel("New image").fill("registry.example.com/team/refused:1");
  await page.getByLabel("Kind of image").selectOption("custom");
  await page.getByRole("button", { name: "Show the plan" }).click();
  const plan = page.getByRole("region", { name: "Plan" });
  for (const box of await plan.getByRole("checkbox").all()) await box.check();
  await plan.getByRole("button", { name: "Change image" }).click();
  await expect(page.getByText("The image was not changed.")).toBeVisible({ timeout: 20_000 });
  await expect(page.getByText("1400").first()).toBeVisible();
  expect((await server.notebook(still.core))!.image?.uri).toBe(before);
  const [failed] = await server.imageChanges(`notebook = "${still.core}"`);
  expect(failed).toMatchObject({ phase: "PHASE_FAILED", toImage: "registry.example.com/team/refused:1" });
});

test("a notebook that changed since the plan is planned again, and goes back to the image before", async ({ page, server, expected }) => {
  expected.refusals = ["409 POST /v1/{notebook}:changeImage"];
  const before = (await server.notebook(still.core))!.image!;
  await page.goto(`${server.url}/#/${still.core}/change`);
  await page.getByLabel("New image").fill("registry.example.com/team/mine:1");
  await page.getByLabel("Kind of image").selectOption("custom");
  await page.getByRole("button", { name: "Show the plan" }).click();
  const plan = page.getByRole("region", { name: "Plan" });
  const change = plan.getByRole("button", { name: "Change image" });
  await expect(change).toBeEnabled();
  const other = await server.changeImage(still.core, { image: "registry.example.com/team/theirs:1", imageType: "custom" });
  expect(other.status).toBe(200);
  await change.click();
  await expect(page.getByText("The notebook has changed meanwhile.").first()).toBeVisible({ timeout: 20_000 });
  expect((await server.notebook(still.core))!.image?.uri).toBe("registry.example.com/team/theirs:1");

  // The change of somebody else is taken back from the history.
  await page.goto(`${server.url}/#/history`);
  await page.getByRole("link", { name: /previous image/ }).first().click();
  await expect(page.getByLabel("New image")).toHaveValue(before.uri!);
  await expect(page.getByLabel("Kind of image")).toHaveValue(before.type!);
  await page.getByRole("button", { name: "Show the plan" }).click();
  await carryOut(page);
  await expect(page.getByText("The image was changed.")).toBeVisible({ timeout: 20_000 });
  expect((await server.notebook(still.core))!.image).toMatchObject({ uri: before.uri, type: before.type });
  const done = await server.imageChanges(`notebook = "${still.core}"`);
  expect(done.map((c) => [c.phase, c.fromImage, c.toImage])).toEqual([
    ["PHASE_SUCCEEDED", "registry.example.com/team/theirs:1", before.uri],
    ["PHASE_SUCCEEDED", before.uri, "registry.example.com/team/theirs:1"],
  ]);

  // And once more: what was taken back is brought again by repeating it.
  await page.goto(`${server.url}/#/history`);
  await page.getByRole("link", { name: /^Repeat: theirs:1/ }).click();
  await expect(page.getByLabel("New image")).toHaveValue("registry.example.com/team/theirs:1");
  await page.getByRole("button", { name: "Show the plan" }).click();
  await carryOut(page);
  await expect(page.getByText("The image was changed.")).toBeVisible({ timeout: 20_000 });
  expect((await server.notebook(still.core))!.image?.uri).toBe("registry.example.com/team/theirs:1");
});
