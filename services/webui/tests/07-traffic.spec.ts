import { ask, call, expect, signIn, system, test } from "./system";

test.beforeAll(async () => {
  const done = await call("POST", "/v1/apply?wait=live", {
    resources: [
      { kind: "Service", name: "halved", spec: { endpoints: [{ host: "127.0.0.1", port: system.backendPort }, { host: "127.0.0.1", port: 1 }], health_check: { tcp: {}, interval: "1s", unhealthy_threshold: 1 } } },
      { kind: "Route", name: "halved", spec: { hosts: ["halved.example.com"], backends: [{ service: "halved" }] } },
      { kind: "Route", name: "broken", spec: { hosts: ["broken.example.com"], direct_response: { status: 503, body: "no\n" } } },
    ],
  });
  expect(done.status, JSON.stringify(done.json)).toBe(200);
});

test("the overview counts what Envoy has answered, and an endpoint that is dead is named there, at its service and in the topology", async ({ page }) => {
  await signIn(page);
  const section = page.getByRole("region", { name: "Traffic of the last ten minutes" });
  await expect(section).toBeVisible();
  const before = (await call("GET", "/v1/metrics/summary")).json.total;
  for (let i = 0; i < 20; i++) expect((await ask("halved.example.com")).status).toBe(200);
  for (let i = 0; i < 5; i++) expect((await ask("broken.example.com")).status).toBe(503);
  await expect.poll(async () => (await call("GET", "/v1/metrics/summary")).json.total.requests - (before.requests ?? 0), { timeout: 60_000 }).toBeGreaterThanOrEqual(25);
  // The page asks by itself, and says the same.
  const total = (await call("GET", "/v1/metrics/summary")).json.total;
  await expect(section.getByText(`${total.answers.server_error} answers of 5xx`)).toBeVisible();
  for (const chart of [/^Requests a second: \d/, /^Errors: \d+ answers of 5xx/, /^Latency: half in/, /^Packets dropped/]) {
    await expect(section.getByRole("img", { name: chart })).toBeVisible();
    await expect(section.getByRole("img", { name: chart }).locator("canvas")).toBeVisible();
  }

  await expect(page.getByText("1 endpoint of Service halved gets no requests")).toBeVisible();
  await page.getByRole("link", { name: "Service halved" }).click();
  const endpoints = page.getByRole("region", { name: "Endpoints" });
  await expect(endpoints.getByRole("status")).toHaveText("1 of 2 endpoints fail");
  await expect(endpoints.locator(".health-row").filter({ hasText: `127.0.0.1:${system.backendPort}` })).toContainText("Healthy");
  await expect(endpoints.locator(".health-row").filter({ hasText: "127.0.0.1:1" }).first()).toContainText("fails its health check");
  await page.goto("/ui/services/demo");
  await expect(endpoints.getByText("Not checked")).toBeVisible();

  await page.goto("/ui/topology?q=halved");
  await expect(page.locator('.topo-box[data-kind="service"]').filter({ hasText: "halved" })).toContainText("2 endpoints, 1 fail");
  await expect(page.locator('.topo-box[data-kind="endpoint"][data-tone="bad"]')).toHaveText(/127\.0\.0\.1:1fails its health check/);

  // It is put right, and nothing is said of it any more.
  const put = await call("PUT", "/v1/services/halved?wait=live", { spec: { endpoints: [{ host: "127.0.0.1", port: system.backendPort }], health_check: { tcp: {}, interval: "1s", unhealthy_threshold: 1 } } });
  expect(put.status).toBe(200);
  await page.goto("/ui/services/halved");
  await expect(endpoints.getByRole("status")).toHaveText("1 endpoint", { timeout: 60_000 });
});

test("the charts come later than the page, and the first load stays small", async ({ page }) => {
  let bytes = 0;
  const first: string[] = [];
  const cdp = await page.context().newCDPSession(page);
  await cdp.send("Network.enable");
  cdp.on("Network.responseReceived", (e) => first.push(e.response.url));
  cdp.on("Network.loadingFinished", (e) => (bytes += e.encodedDataLength));
  await page.goto("/ui/");
  await expect(page.getByRole("button", { name: "Sign in" })).toBeVisible();
  expect(bytes, `${first.join("\n")}`).toBeLessThan(300_000);
  expect(bytes).toBeGreaterThan(50_000);
  expect(first.filter((u) => /chart|topology|editor|elk/.test(u))).toEqual([]);
});
