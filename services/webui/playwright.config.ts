import { defineConfig } from "@playwright/test";

// The system that is looked at is started by test/webui, which says here where it is.
export default defineConfig({
  testDir: "tests",
  workers: 1,
  retries: 0,
  timeout: 120_000,
  expect: { timeout: 30_000 },
  reporter: [["list"]],
  outputDir: process.env["MARCHPROXY_RESULTS"] ?? "test-results",
  use: {
    baseURL: process.env["MARCHPROXY_UI"] ?? "http://localhost:3000",
    browserName: "chromium",
    launchOptions: { executablePath: process.env["CHROMIUM"] ?? "/usr/bin/chromium", args: ["--no-sandbox"] },
    viewport: { width: 1360, height: 860 },
    colorScheme: "light",
    contextOptions: { reducedMotion: "reduce" }, // what is half faded in has no contrast yet
    screenshot: "only-on-failure",
    trace: "off",
  },
});
