import { existsSync } from "node:fs";
import { defineConfig } from "@playwright/test";

/** The browser that is tested with. On Debian: apt-get install --no-install-recommends chromium */
const chromium = process.env["CHROMIUM"] ?? "/usr/bin/chromium";
if (!existsSync(chromium)) throw new Error(`These tests need a browser at ${chromium} (on Debian: apt-get install --no-install-recommends chromium), or CHROMIUM to say where one is.`);

export default defineConfig({
  testDir: "tests",
  outputDir: "test-results",
  fullyParallel: true,
  forbidOnly: true,
  workers: 2,
  retries: 0,
  timeout: 40_000,
  expect: { timeout: 10_000 },
  reporter: [["list"]],
  use: {
    locale: "en-US",
    timezoneId: "Asia/Shanghai",
    colorScheme: "light",
    viewport: { width: 1440, height: 900 },
    // Without a film of every page, which takes as long as the tests; what was on it is there.
    trace: { mode: "retain-on-failure", screenshots: false, snapshots: true, sources: true },
    screenshot: "only-on-failure",
    launchOptions: {
      executablePath: chromium,
      // A browser that only asks the server under test, also where there is nothing else to ask.
      args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
    },
  },
});
