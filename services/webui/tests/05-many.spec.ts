import { call, expect, figure, signIn, test } from "./system";
import type { Page } from "@playwright/test";

// A thousand hosts of fifty teams, each team with a service for all of them and some with one more.
const team = (i: number) => `team-${String(i % 50).padStart(2, "0")}`;
const services = Array.from({ length: 50 }, (_, i) => ({ kind: "Service", name: team(i), spec: { endpoints: [{ host: `10.30.${i}.1`, port: 8080 }, { host: `10.30.${i}.2`, port: 8080 }] } }));
const routes = (from: number, to: number) =>
  Array.from({ length: to - from }, (_, j) => {
    const i = from + j;
    return { kind: "Route", name: `site-${String(i).padStart(5, "0")}`, spec: { hosts: [`site-${String(i).padStart(5, "0")}.example.com`], backends: [{ service: team(i) }] } };
  });

async function apply(resources: unknown[]) {
  const r = await call("POST", "/v1/apply", { resources });
  expect(r.status, JSON.stringify(r.json).slice(0, 2000)).toBeLessThan(300);
}

/** Says how long something took, and fails where that is too long. */
function within(what: string, ms: number, bar: number) {
  const said = `${what}: ${Math.round(ms)} ms`;
  figure(said);
  test.info().annotations.push({ type: "figure", description: said });
  expect(ms, what).toBeLessThan(bar);
}

/** How long it took from the end of the last answer that the page has read of a path until a condition holds there. */
const since = (page: Page, path: string, condition: string) =>
  page.evaluate<number>(`(async () => {
    while (!(${condition})) await new Promise((done) => requestAnimationFrame(done));
    await new Promise((done) => requestAnimationFrame(done)); // and is painted
    const ends = performance.getEntriesByType("resource").filter((r) => r.name.includes("${path}")).map((r) => r.responseEnd);
    return performance.now() - Math.max(...ends);
  })()`);

/** How long something took that is done in the page, until a condition holds there. */
const took = (page: Page, act: string, condition: string) =>
  page.evaluate<number>(`(async () => {
    const began = performance.now();
    ${act};
    while (!(${condition})) await new Promise((done) => requestAnimationFrame(done));
    return performance.now() - began;
  })()`);

const type = (label: string, text: string) => `
  const box = document.querySelector('[aria-label="${label}"]');
  Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, "value").set.call(box, "${text}");
  box.dispatchEvent(new Event("input", { bubbles: true }))`;
const counted = (text: string) => `[...document.querySelectorAll('[role="status"]')].some((e) => e.textContent === "${text}")`;

test.beforeAll(async () => apply([...services, ...routes(0, 1000)]));

test("the topology of 1,000 routes comes soon, and the page goes on meanwhile", async ({ page }) => {
  await page.addInitScript(() => {
    const w = window as unknown as { longest: number };
    w.longest = 0;
    new PerformanceObserver((l) => {
      for (const e of l.getEntries()) w.longest = Math.max(w.longest, e.duration);
    }).observe({ type: "longtask", buffered: true });
  });
  await signIn(page);
  await page.goto("/ui/topology");
  within("topology of 1,000 routes, until it is shown", await since(page, "/v1/", `document.querySelectorAll(".react-flow__node").length > 10`), 2_000);
  within("topology of 1,000 routes, the longest that the page did not answer", await page.evaluate(() => (window as unknown as { longest: number }).longest), 500);
  await page.getByRole("button", { name: /20 hosts/ }).first().click();
  await expect(page).toHaveURL(/q=team-\d\d$/);
  await expect(page.locator(".react-flow__node").filter({ hasText: /^site-\d+\.example\.com/ }).first()).toBeVisible();
});

test("a list of 10,000 routes is usable at once, filtered, sorted, and to its end", async ({ page }) => {
  test.setTimeout(600_000);
  for (let i = 1000; i < 10_000; i += 1000) await apply(routes(i, i + 1000));
  await signIn(page);
  await page.goto("/ui/routes");
  within("10,000 routes, until they are listed", await since(page, "/v1/routes", counted("10,000 routes")), 1_000);
  within("10,000 routes, filtered", await took(page, type("Filter routes", "site-07"), counted("1,000 of 10,000")), 1_000);
  await page.getByLabel("Filter routes").fill("");
  await expect(page.getByText("10,000 routes", { exact: true })).toBeVisible();
  within("10,000 routes, sorted", await took(page, `[...document.querySelectorAll('[role="columnheader"] button')].find((b) => b.textContent === "Goes to").click()`,
    `document.querySelector('[role="columnheader"][aria-sort="ascending"]')?.textContent === "Goes to"`), 1_000);
  await page.getByRole("button", { name: "Goes to" }).click();
  await page.getByRole("button", { name: "Goes to" }).click();
  const table = page.getByRole("table", { name: "Routes" });
  await table.evaluate((t) => t.scrollTo({ top: t.scrollHeight }));
  await expect(table.getByRole("link", { name: "site-09999", exact: true })).toBeVisible();
  // Only what is in sight is in the document.
  expect(await table.getByRole("row").count()).toBeLessThan(80);
});
