import { request } from "node:http";
import type { Page } from "@playwright/test";
import { call, expect, field, signIn, system, test } from "./system";

type Asked = { method?: string; host: string; path?: string; headers?: Record<string, string> };

/** What the real Envoy answers. */
const envoy = (a: Asked) =>
  new Promise<{ status: number; location: string }>((done, failed) => {
    const r = request({ host: "127.0.0.1", port: system.proxyPort, method: a.method ?? "GET", path: a.path ?? "/", headers: { ...a.headers, Host: a.host } }, (res) => {
      res.resume();
      res.on("end", () => done({ status: res.statusCode ?? 0, location: res.headers.location ?? "" }));
    });
    r.on("error", failed);
    r.end();
  });

/** Fills the form in, and reads what the page says. */
async function say(page: Page, a: Asked) {
  await page.goto("/ui/try");
  await field(page, "Host").fill(a.host);
  await page.keyboard.press("Escape");
  await field(page, "Path").fill(a.path ?? "/");
  if (a.method) {
    await page.getByRole("combobox", { name: "Method" }).click();
    await page.getByRole("option", { name: a.method, exact: true }).click();
  }
  for (const [i, [name, value]] of Object.entries(a.headers ?? {}).entries()) {
    await page.getByRole("button", { name: "Add a header" }).click();
    await page.getByLabel(`Name of header ${i + 1}`).fill(name);
    await page.getByLabel(`Value of header ${i + 1}`).fill(value);
  }
  await page.getByRole("button", { name: "Try it" }).click();
  const said = page.getByRole("region", { name: "What happens" });
  await expect(said.getByText(/as of revision/)).toBeVisible();
  return said;
}

const secret = "the-token-of-a-partner-which-nobody-guesses";

test.beforeAll(async () => {
  const done = await call("POST", "/v1/apply?wait=live", {
    resources: [
      { kind: "Service", name: "tried", spec: { endpoints: [{ host: "127.0.0.1", port: system.backendPort }] } },
      { kind: "AuthPolicy", name: "tried-partners", spec: { tokens: [{ name: "partner", value: secret }] } },
      { kind: "Route", name: "tried", spec: { hosts: ["tried.example.com"], backends: [{ service: "tried" }], local_rate_limit: { requests: 1000, per: "60s" } } },
      { kind: "Route", name: "tried-post", spec: { hosts: ["tried.example.com"], path: { prefix: "/form" }, methods: ["POST"], direct_response: { status: 202, body: "taken\n" } } },
      { kind: "Route", name: "tried-old", spec: { hosts: ["tried.example.com"], path: { prefix: "/old" }, redirect: { path: "/new", status: 308 } } },
      { kind: "Route", name: "tried-partners", spec: { hosts: ["tried.example.com"], path: { prefix: "/partners" }, auth_policy: "tried-partners", direct_response: { status: 200, body: "in\n" } } },
      { kind: "Route", name: "tried-any", spec: { hosts: ["*.any.tried.example.com"], path: { exact: "/one" }, direct_response: { status: 418, body: "any\n" } } },
    ],
  });
  expect(done.status, JSON.stringify(done.json)).toBe(200);
});

test("what the page says of a request is what the real Envoy answers", async ({ page }) => {
  const tries: (Asked & { says: string; route: string; to?: string })[] = [
    { host: "tried.example.com", says: "Goes to a service", route: "tried" },
    { host: "tried.example.com", path: "/form", says: "Goes to a service", route: "tried" },
    { host: "tried.example.com", path: "/form", method: "POST", says: "Answered by Envoy", route: "tried-post" },
    { host: "tried.example.com", path: "/old/page", says: "Is redirected", route: "tried-old" },
    { host: "tried.example.com", path: "/partners", says: "Is refused", route: "tried-partners" },
    { host: "tried.example.com", path: "/partners", headers: { authorization: "Bearer wrong" }, says: "Is refused", route: "tried-partners" },
    { host: "tried.example.com", path: "/partners", headers: { authorization: `Bearer ${secret}` }, says: "Answered by Envoy", route: "tried-partners" },
    { host: "a.any.tried.example.com", path: "/one", says: "Answered by Envoy", route: "tried-any" },
    { host: "a.any.tried.example.com", path: "/two", says: "Is refused", route: "" },
    { host: "nobody.knows.example.com", path: "/", says: "Goes to a service", route: "demo", to: "demo" }, // of every other host
    { host: "tried.example.com", path: "/a%2Fb", says: "Is redirected", route: "" },
  ];
  await signIn(page);
  for (const t of tries)
    await test.step(`${t.method ?? "GET"} ${t.host}${t.path ?? "/"}`, async () => {
      const said = await say(page, t);
      const answer = await envoy(t);
      await expect(said.getByText(t.says, { exact: true })).toBeVisible();
      if (t.says === "Goes to a service") {
        expect(answer.status, "the backend's own").toBe(200);
        await expect(said.getByLabel("Status")).toHaveCount(0);
        await expect(said.locator('a[href^="/ui/services/"]')).toHaveText(t.to ?? "tried");
      } else await expect(said.getByLabel("Status")).toHaveText(String(answer.status));
      if (answer.location) await expect(said.getByText(answer.location, { exact: true })).toBeVisible();
      if (t.route) await expect(said.getByRole("listitem").filter({ hasText: "Fits" }).getByRole("link")).toHaveText(t.route);
      else await expect(said.getByRole("listitem").filter({ hasText: "Fits" })).toHaveCount(0);
    });
});

test("what is asked is in the page's address, but for what may be a token", async ({ page }) => {
  const asked: string[] = [];
  await signIn(page);
  page.on("request", (r) => asked.push(r.url()));
  await say(page, { host: "tried.example.com", path: "/partners?key=in-the-query", method: "PUT", headers: { authorization: `Bearer ${secret}`, "x-user": "ann" } });
  await field(page, "Client's address").fill("203.0.113.7");
  await page.getByRole("button", { name: "Try it" }).click();
  await expect(page).toHaveURL(/host=tried\.example\.com.*path=%2Fpartners.*source=203\.0\.113\.7.*headers=authorization%2Cx-user/);
  for (const url of [page.url(), ...asked]) {
    expect(url).not.toContain(secret);
    expect(url).not.toContain("in-the-query");
    expect(url).not.toContain("ann");
  }
  // Who opens the link has the same in the form, and is asked for the values.
  await page.reload();
  await expect(page.getByLabel("Name of header 2")).toHaveValue("x-user");
  await expect(page.getByLabel("Value of header 1")).toHaveValue("");
  await expect(field(page, "Client's address")).toHaveValue("203.0.113.7");
  // One without headers lacks nothing, and is answered at once.
  await page.goto("/ui/try?host=tried.example.com&path=/form");
  await expect(page.getByRole("listitem").filter({ hasText: "tried-post" })).toContainText("POST");
  // What is wrong is said beside the field.
  await field(page, "Client's address").fill("nowhere");
  await page.getByRole("button", { name: "Try it" }).click();
  await expect(page.getByText("is no address such as").first()).toBeVisible();
});
