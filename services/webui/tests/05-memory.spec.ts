import { call, expect, figure, signIn, test } from "./system";
import type { Page } from "@playwright/test";

// How long events come, in minutes: an hour says more than a minute does, and takes an hour.
const minutes = Number(process.env["MARCHPROXY_MINUTES"] || 1);
const perSecond = 5;

/** What a page holds after its garbage is collected. */
async function held(page: Page) {
  const devtools = await page.context().newCDPSession(page);
  try {
    for (let i = 0; i < 2; i++) await devtools.send("HeapProfiler.collectGarbage");
    const { usedSize } = await devtools.send("Runtime.getHeapUsage");
    const { nodes, jsEventListeners } = await devtools.send("Memory.getDOMCounters");
    return { MB: usedSize / 1024 ** 2, nodes, listeners: jsEventListeners };
  } finally {
    await devtools.detach();
  }
}

const backends = (weight: number) => ({ spec: { hosts: ["watched.example.com"], backends: [{ service: "watched", weight }] } });

/** Changes a route again and again, and says how often, and which revision the last change has made. */
async function changes(seconds: number) {
  const until = Date.now() + seconds * 1000;
  let n = 0;
  let revision = 0;
  for (; Date.now() < until; n++) {
    const next = Date.now() + 1000 / perSecond;
    const r = await call("PUT", "/v1/routes/watched", backends(1 + (n % 90)));
    expect(r.status, JSON.stringify(r.json)).toBeLessThan(300);
    revision = r.json.revision;
    await new Promise((done) => setTimeout(done, Math.max(0, next - Date.now())));
  }
  return { n, revision };
}

test("memory stays flat while events come", async ({ page, context }) => {
  const full = Math.max(20, minutes * 6);
  test.setTimeout((full + minutes * 60 + 300) * 1000);
  expect((await call("PUT", "/v1/services/watched", { spec: { endpoints: [{ host: "192.0.2.1", port: 80 }] } })).status).toBeLessThan(300);
  expect((await call("PUT", "/v1/routes/watched", backends(1))).status).toBeLessThan(300);
  await signIn(page);
  const pages: Record<string, Page> = { overview: page };
  for (const path of ["routes", "revisions", "topology?q=watched"]) {
    const other = await context.newPage();
    await other.goto(`/ui/${path}`);
    await expect(other.locator("h1").first()).toBeVisible();
    pages[path] = other;
  }
  // What is kept of the past is bounded, and must be full before it can be seen not to grow.
  await changes(full);
  const before: Record<string, Awaited<ReturnType<typeof held>>> = {};
  for (const [name, p] of Object.entries(pages)) before[name] = await held(p);
  let n = 0;
  let revision = 0;
  const began = Date.now();
  for (let i = 1; i <= 10; i++) {
    const more = await changes((began + minutes * 6_000 * i - Date.now()) / 1000);
    n += more.n;
    revision = more.revision;
    const all = await Promise.all(Object.entries(pages).map(async ([name, p]) => `${name} ${(await held(p)).MB.toFixed(1)}`));
    console.log(`${((minutes * i) / 10).toFixed(1)} of ${minutes} minutes, ${n} changes; MB: ${all.join(", ")}`);
  }
  for (const [name, p] of Object.entries(pages)) {
    const was = before[name]!;
    const is = await held(p);
    const said =
      `${name}, ${n} changes in ${minutes} minutes: ${was.MB.toFixed(1)} to ${is.MB.toFixed(1)} MB, ` +
      `${was.nodes} to ${is.nodes} nodes, ${was.listeners} to ${is.listeners} listeners`;
    figure(said);
    expect.soft(is.MB, said).toBeLessThan(1.15 * was.MB + 2);
    expect.soft(is.nodes, said).toBeLessThan(1.2 * was.nodes + 200);
    expect.soft(is.listeners, said).toBeLessThan(1.2 * was.listeners + 50);
  }
  // They have followed all the while.
  await expect(pages["revisions"]!.getByRole("link", { name: String(revision), exact: true }).first()).toBeVisible();
});
