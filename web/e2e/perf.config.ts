// make perf-console: the console is measured, by itself.

import { defineConfig } from "@playwright/test";
import tests from "./playwright.config.ts";

export default defineConfig({
  ...tests,
  testDir: "perf",
  workers: 1,
  timeout: 0, // as long as it is told to
  use: { ...tests.use, trace: "off", screenshot: "off" },
});
