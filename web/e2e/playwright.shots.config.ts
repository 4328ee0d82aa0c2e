import { defineConfig } from "@playwright/test";
import config from "./playwright.config.ts";

/** Pictures of everything that the console can show: npm run shots. */
export default defineConfig(config, {
  testDir: "shots",
  outputDir: "test-results",
  timeout: 180_000,
  use: { trace: "off", screenshot: "off" },
});
