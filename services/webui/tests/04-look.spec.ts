import { fill } from "./content";
import { call, expect, field, signIn, system, test } from "./system";
import type { Locator, Page } from "@playwright/test";

const dialogOf = (page: Page) => page.getByRole("dialog");
test.beforeAll(async () => {
  if ((await call("GET", "/v1/services/storefront")).status === 200) return; // a test before has failed, and this begins anew
  await fill();
  await expect.poll(async () => (await call("GET", "/v1/status")).json.rejected.length, { timeout: 60_000 }).toBeGreaterThan(0);
  await expect.poll(async () => (await call("GET", "/v1/proxies")).json.items.length, { timeout: 60_000 }).toBe(4);
});

/** Presses Tab until something has the focus. */
async function tabTo(page: Page, wanted: Locator, most = 150) {
  await expect(wanted.first()).toBeVisible();
  for (let i = 0; i < most; i++) {
    if (await wanted.evaluateAll((all) => all.includes(document.activeElement as HTMLElement))) return;
    await page.keyboard.press("Tab");
  }
  throw new Error(`${most} times Tab do not reach ${wanted}`);
}

test("with the keyboard alone: sign in, open a list, change a route, save it", async ({ page }) => {
  await call("PUT", "/v1/routes/by-keys?wait=live", { spec: { hosts: ["by-keys.example.com"], direct_response: { status: 200, body: "before" } } });
  await page.goto("/ui/");
  await expect(field(page, "Token")).toBeFocused();
  await page.keyboard.type(system.token);
  await page.keyboard.press("Enter");
  await tabTo(page, page.getByRole("navigation", { name: "Main" }).getByRole("link", { name: /^Routes/ }));
  await page.keyboard.press("Enter");
  await expect(page.getByRole("heading", { name: "Routes" })).toBeVisible();
  await tabTo(page, page.getByLabel("Filter routes"));
  await page.keyboard.type("by-keys");
  await expect(page.getByRole("status").filter({ hasText: "of" })).toContainText("1 of");
  await tabTo(page, page.getByRole("table").getByRole("link", { name: "by-keys" }));
  await page.keyboard.press("Enter");
  await tabTo(page, field(page, "Body"));
  await page.keyboard.press("Control+a");
  await page.keyboard.type("after");
  await tabTo(page, page.getByRole("button", { name: "Review and save" }));
  await page.keyboard.press("Enter");
  await expect(dialogOf(page).locator('.diff-line[data-sign="+"]')).toContainText("after");
  await tabTo(page, dialogOf(page).getByRole("button", { name: "Save", exact: true }));
  await page.keyboard.press("Enter");
  await expect(dialogOf(page).getByText("Live", { exact: true })).toBeVisible();
  await tabTo(page, dialogOf(page).getByRole("button", { name: "Done" }));
  await page.keyboard.press("Enter");
  await expect(dialogOf(page)).toHaveCount(0);
  expect((await call("GET", "/v1/routes/by-keys")).json.spec.direct_response.body).toBe("after");
});

test("an Envoy that hangs is shown to be behind, and in step again when it goes on", async ({ page }) => {
  const pid = system.envoys["edge-iad-1"];
  if (!pid) throw new Error("there is no Envoy edge-iad-1");
  await call("DELETE", "/v1/routes/legacy-reports?wait=live"); // which an Envoy of the same gateway refuses
  await signIn(page, "/ui/envoys");
  const row = page.getByRole("table", { name: "Envoys" }).getByRole("row").filter({ hasText: "edge-iad-1" });
  await expect(row.getByText("In step")).toBeVisible();
  process.kill(pid, "SIGSTOP");
  try {
    const written = await call("PUT", "/v1/routes/while-it-hangs", { spec: { hosts: ["while-it-hangs.example.com"], direct_response: { status: 200, body: "x" } } });
    expect(written.status, JSON.stringify(written.json)).toBe(201);
    await expect(row.getByText("Behind")).toBeVisible();
    const others = page.getByRole("table", { name: "Envoys" }).getByRole("row").filter({ hasText: "edge-ams-2" });
    await expect(others.getByText("In step")).toBeVisible();
    await row.getByRole("link").click();
    await expect(dialogOf(page).getByText(/It has waited for/)).toBeVisible();
    await page.keyboard.press("Escape");
    await page.goto("/ui/envoys?state=STALE");
    await expect(page.getByRole("table", { name: "Envoys" }).getByRole("row")).toHaveCount(2);
    await page.goto("/ui/");
    await expect(page.getByText("Envoy edge-iad-1 is behind")).toBeVisible();
  } finally {
    process.kill(pid, "SIGCONT");
  }
  await page.goto("/ui/envoys");
  await expect(row.getByText("In step")).toBeVisible();
});
