import { expect, looks, looksWell, screen, signIn, test } from "./system";
import type { Page } from "@playwright/test";

const search = (page: Page) => page.getByRole("combobox", { name: "Search the documentation" });
const found = (page: Page) => page.getByRole("listbox", { name: "Found" }).getByRole("option");

// Each scheme and each width once: axe takes seconds for the largest pages.
for (const look of looks.filter((l) => l.name === "light" || l.name === "phone-dark")) {
  test.describe(look.name, () => {
    test.use(screen(look));
    for (const [name, path] of Object.entries({
      home: "", start: "getting-started.html", operations: "operations.html", messages: "troubleshooting.html", cli: "cli.html",
      api: "api.html", webui: "webui.html", decisions: "adr/index.html", missing: "no-such-page.html",
    })) {
      test(`the documentation's ${name} looks well`, async ({ page }) => {
        test.setTimeout(600_000); // axe looks at each of the thousands of elements of the largest pages
        await page.goto(`/docs/${path}`);
        await looksWell(page, `docs-${name}`, look, name === "home" ? "images/pages" : "none");
      });
    }
    test("what the search finds, and the contents, look well", async ({ page }) => {
      test.setTimeout(600_000);
      await page.goto("/docs/operations.html");
      await search(page).fill("backup");
      await expect(found(page).first()).toBeVisible();
      await looksWell(page, "docs-search", look);
      await search(page).press("Escape");
      await expect(found(page)).toHaveCount(0);
      if (!look.phone) return;
      await page.getByRole("link", { name: "Contents" }).click();
      await expect(page.getByRole("navigation", { name: "Documentation" })).toBeVisible();
      await looksWell(page, "docs-contents", look);
      await page.getByRole("link", { name: "Close" }).click();
      await expect(page.getByRole("navigation", { name: "Documentation" })).toBeHidden();
      await page.getByRole("link", { name: "Contents" }).click();
      await page.getByRole("navigation", { name: "Documentation" }).getByRole("link", { name: "Metrics" }).click();
      await expect(page.getByRole("heading", { name: "Metrics", level: 1 })).toBeVisible();
    });
  });
}

test("no page of the documentation asks another server, or does what the policy blocks", async ({ page, baseURL }) => {
  const elsewhere: string[] = [];
  page.on("request", (r) => {
    if (new URL(r.url()).origin !== new URL(baseURL ?? "").origin) elsewhere.push(r.url());
  });
  const links = async (path: string) => {
    await page.goto(path);
    return page.locator('a[href^="/docs/"]').evaluateAll((all) => all.map((a) => (a as HTMLAnchorElement).pathname));
  };
  const pages = new Set([...(await links("/docs/")), ...(await links("/docs/adr/index.html"))]);
  expect(pages.size).toBeGreaterThan(90);
  for (const path of pages) {
    const r = await page.goto(path, { waitUntil: "load" });
    expect(r?.status(), path).toBe(200);
  }
  expect(elsewhere).toEqual([]);
});

test("with the keyboard alone: search, choose, follow, read on", async ({ page }) => {
  await page.goto("/docs/");
  await page.keyboard.press("Tab");
  await expect(page.getByRole("link", { name: "Skip to the content" })).toBeFocused();
  await page.keyboard.press("Enter");
  await expect(page.locator("main")).toBeFocused();
  await page.keyboard.press("/");
  await expect(search(page)).toBeFocused();
  await page.keyboard.type("sealed with another SECRET_KEY");
  await expect(found(page).first()).toContainText("sealed with another SECRET_KEY");
  await page.keyboard.press("ArrowDown");
  await page.keyboard.press("ArrowUp");
  await expect(found(page).first()).toHaveAttribute("aria-selected", "true");
  await page.keyboard.press("Enter");
  await expect(page).toHaveURL(/\/docs\/troubleshooting\.html#sealed-with/);
  await expect(page.getByRole("heading", { name: /sealed with another SECRET_KEY/ })).toBeInViewport();
  // An operation of the API is found, and open where the link leads.
  await page.keyboard.press("Control+k");
  await search(page).fill("POST /v1/explain");
  await expect(found(page).filter({ hasText: "POST /v1/explain" }).first()).toBeVisible();
  await found(page).filter({ hasText: "POST /v1/explain" }).first().click();
  await expect(page).toHaveURL(/\/docs\/api\.html#explain/);
  await expect(page.locator("details#explain")).toHaveAttribute("open", "");
  await search(page).fill("xyzzyplugh");
  await expect(page.getByRole("status")).toHaveText("Nothing is found");
});

test("the scheme that is chosen stays, and is the web UI's", async ({ page }) => {
  await page.goto("/docs/");
  await page.getByRole("button", { name: "Use the dark scheme" }).click();
  await page.goto("/docs/metrics.html");
  await expect(page.locator("html")).toHaveAttribute("data-scheme", "dark");
  await signIn(page);
  await expect(page.locator("html")).toHaveAttribute("data-mantine-color-scheme", "dark");
  await page.getByRole("navigation", { name: "Main" }).getByRole("link", { name: "Documentation" }).click();
  await expect(page.getByRole("heading", { name: "MarchProxy's documentation" })).toBeVisible();
  await expect(page.getByRole("button", { name: "Use the light scheme" })).toBeVisible();
});

test.describe("without scripts", () => {
  test.use({ javaScriptEnabled: false });
  test("the documentation can be read", async ({ page }) => {
    await page.goto("/docs/");
    await page.getByRole("navigation", { name: "Documentation" }).getByRole("link", { name: "Command line" }).click();
    await expect(page.getByRole("heading", { name: "The command line", level: 1 })).toBeVisible();
    await expect(search(page)).toHaveCount(0);
  });
});
