import path from "node:path";
import type { Page } from "@playwright/test";
import { changes, outage, recreations, signIn, table, type Scenes } from "../fixtures/scenes.ts";
import { asking, test } from "../fixtures/test.ts";
import { looks, show } from "../fixtures/looks.ts";

const folder = path.resolve(import.meta.dirname, "../pictures");

/** play goes from scene to scene and takes a picture in every look. */
async function play<S extends { page: Page }>(scenes: Scenes<S>, stage: S): Promise<void> {
  for (const [name, see] of Object.entries(scenes)) {
    await test.step(name, async () => {
      await see(stage);
      for (const look of looks) {
        await show(stage.page, look);
        await stage.page.screenshot({ path: path.join(folder, `${name}-${look.width}-${look.colorScheme}-${look.language}.png`), fullPage: true });
      }
      await show(stage.page, looks[0]);
    });
  }
}

test("the table, clouds, notebooks", async ({ page, server, clouds, expected }) => await play(table, { page, server, clouds, expected }));
test("image changes", async ({ page, server, clouds, expected }) => await play(changes, { page, server, clouds, expected }));
test("a notebook is replaced", async ({ page, server, clouds, expected }) => await play(recreations, { page, server, clouds, expected }));
test("clouds that fail, a lost server", async ({ page, server, clouds, expected }) => await play(outage, { page, server, clouds, expected }));
asking("signing in", async ({ page, server, clouds, expected, tokens, issuer }) => await play(signIn, { page, server, clouds, expected, tokens, issuer }));
