import { fill, longName } from "./content";
import { ask, call, expect, field, looks, looksWell, paste, screen, settled, signIn, test, type Look } from "./system";
import type { Page } from "@playwright/test";

type View = {
  name: string;
  path: string;
  /** What is done there before it is looked at. */
  then?: (page: Page, look: Look) => Promise<void>;
  /** Whether the documentation shows it: on a desk, in both schemes; "phone": on a phone, too. */
  kept?: true | "phone";
};

const dialogOf = (page: Page) => page.getByRole("dialog");
async function edit(page: Page) {
  await field(page, "Timeout").fill("20s");
  await page.getByRole("button", { name: "Review and save" }).click();
  await expect(dialogOf(page).locator(".diff").first()).toBeVisible();
}

const kinds = ["endpoint-sets", "gateways", "auth-policies", "rate-limit-policies", "certificate-issuers", "locality-drains", "licenses"];
const views: View[] = [
  { name: "routes", path: "/ui/routes", kept: "phone" },
  { name: "routes-filtered", path: "/ui/routes?q=api&sort=-name" },
  { name: "routes-nothing", path: "/ui/routes?q=nothing+is+like+this" },
  { name: "services", path: "/ui/services" },
  { name: "certificates", path: "/ui/certificates", kept: true },
  ...kinds.map((k) => ({ name: k, path: `/ui/${k}` })),
  { name: "route", path: "/ui/routes/storefront", kept: "phone" },
  { name: "route-long", path: "/ui/routes/measurements-of-the-production-line-of-every-plant-in-the-world" },
  { name: "route-refused", path: "/ui/routes/legacy-reports" },
  { name: "service-long", path: `/ui/services/${longName}` },
  { name: "service", path: "/ui/services/orders", kept: "phone", then: async (page) => expect(page.getByRole("region", { name: "Endpoints" }).getByText("Healthy").first()).toBeVisible() },
  { name: "service-unchecked", path: "/ui/services/search" },
  { name: "gateway", path: "/ui/gateways/default" },
  { name: "auth-policy", path: "/ui/auth-policies/customers" },
  { name: "rate-limit-policy", path: "/ui/rate-limit-policies/edge-flood" },
  { name: "certificate", path: "/ui/certificates/shop-example-com" },
  { name: "certificate-issued", path: "/ui/certificates/checkout-example-com", kept: true },
  {
    name: "route-yaml", path: "/ui/routes/storefront", kept: true,
    then: async (page) => {
      await page.getByRole("tab", { name: "YAML" }).click();
      await expect(page.getByRole("textbox", { name: "Route as YAML" })).toContainText("storefront-canary");
    },
  },
  {
    name: "route-yaml-broken", path: "/ui/routes/webmail",
    then: async (page) => {
      await page.getByRole("tab", { name: "YAML" }).click();
      await paste(page.getByRole("textbox", { name: "Route as YAML" }), "spec:\n  hosts: [mail.example.com\n");
      await expect(page.getByText("This cannot be read")).toBeVisible();
    },
  },
  {
    name: "route-history", path: "/ui/routes/api-payments",
    then: async (page) => {
      await page.getByRole("tab", { name: "History" }).click();
      await expect(page.getByText("The bank answers slowly")).toBeVisible();
    },
  },
  {
    name: "route-menu", path: "/ui/routes/webmail",
    then: async (page) => {
      await page.getByRole("button", { name: "Add a setting" }).last().click();
      await expect(page.getByRole("option", { name: /Retry/ })).toBeVisible();
    },
  },
  {
    name: "route-conflict", path: "/ui/routes/-/new",
    then: async (page) => {
      await field(page, "Name").fill("another-storefront");
      await field(page, "Hosts").fill("shop.example.com");
      await page.keyboard.press("Enter");
      await field(page, "Service").fill("storefront");
      await page.keyboard.press("Escape");
      await expect(page.getByText(/to be put right/)).toBeVisible();
    },
  },
  {
    name: "save", path: "/ui/routes/api-payments", kept: "phone",
    then: edit,
  },
  {
    name: "delete", path: "/ui/services/orders",
    then: async (page) => {
      await page.getByRole("button", { name: "More actions" }).click();
      await page.getByRole("menuitem", { name: "Delete" }).click();
      await expect(dialogOf(page).getByRole("button", { name: "Keep it" })).toBeVisible();
    },
  },
  { name: "revisions", path: "/ui/revisions", kept: true },
  {
    name: "revisions-compared", path: "/ui/revisions",
    then: async (page, look) => {
      if (look.phone) return; // which has no room for two revisions side by side, and offers none
      const boxes = page.getByRole("checkbox");
      await boxes.nth(0).check();
      await boxes.nth(3).check();
      await expect(dialogOf(page).locator(".diff").first()).toBeVisible();
    },
  },
  { name: "audit", path: "/ui/audit", kept: true },
  { name: "envoys", path: "/ui/envoys", kept: "phone" },
  { name: "envoy", path: "/ui/envoys?id=edge-iad-1", then: async (page) => expect(dialogOf(page).getByText("xDS server")).toBeVisible() },
  { name: "nodes", path: "/ui/nodes", kept: true, then: async (page) => expect(page.getByRole("heading", { name: "edge-fra-1" })).toBeVisible() },
  { name: "topology", path: "/ui/topology", kept: "phone", then: async (page) => expect(page.locator(".react-flow__node").first()).toBeVisible() },
  { name: "topology-one", path: "/ui/topology?q=shop.example.com", then: async (page) => expect(page.locator(".react-flow__node").first()).toBeVisible() },
  {
    name: "publish", path: "/ui/publish", kept: "phone",
    then: async (page) => {
      await field(page, "Host").fill("wiki.example.com");
      await field(page, "Address").fill("10.20.1.11:3000");
      await page.getByRole("button", { name: "Show what is written" }).click();
      await expect(page.locator(".diff").first()).toBeVisible();
    },
  },
  {
    name: "publish-wrong", path: "/ui/publish",
    then: async (page) => {
      await field(page, "Host").fill("shop.example.com");
      await field(page, "Address").fill("10.20.1.11");
      await expect(page.getByText("A host and a port, such as")).toBeVisible();
    },
  },
  { name: "try-empty", path: "/ui/try" },
  { name: "try", path: "/ui/try?host=shop.example.com&path=/cart/42&source=203.0.113.7", kept: "phone", then: async (page) => expect(page.getByText(/as of revision/)).toBeVisible() },
  { name: "try-redirected", path: "/ui/try?host=old-shop.example.com&path=/a/b", then: async (page) => expect(page.getByText("Is redirected")).toBeVisible() },
  { name: "try-long", path: `/ui/try?host=x.plant-7.example.com&path=/a/path/that/goes/on/and/on/until/nobody/remembers/where/it/began/and/further`, then: async (page) => expect(page.getByText(/as of revision/)).toBeVisible() },
  {
    name: "try-wrong", path: "/ui/try?host=shop.example.com&source=nowhere",
    then: async (page) => expect(page.getByText("is no address such as").first()).toBeVisible(),
  },
  {
    name: "access-log", path: "/ui/access-log", kept: true,
    then: async (page) => {
      for (const [host, path] of [["shop.example.com", "/cart/42"], ["old-shop.example.com", "/a"], ["nobody.example.com", "/x".repeat(200)]] as const) await ask(host, path);
      await expect(page.getByRole("table", { name: "Requests" }).getByRole("button").first()).toBeVisible();
    },
  },
  {
    name: "access-log-details", path: "/ui/access-log?host=shop.example.com",
    then: async (page) => {
      // Visitors come to one of several Envoys that share the port, and those of the others no agent tells of.
      await expect(async () => {
        await page.getByRole("table", { name: "Requests" }).getByRole("button").first().click({ timeout: 1_500 });
        await expect(dialogOf(page)).toBeVisible({ timeout: 1_500 });
      }).toPass({ timeout: 60_000 });
      await expect(dialogOf(page).getByRole("link", { name: "Try a request like it" })).toBeVisible();
    },
  },
  { name: "access-log-nothing", path: "/ui/access-log?gateway=nowhere", then: async (page) => expect(page.getByText(/No Envoy is connected that/)).toBeVisible() },
  { name: "nowhere", path: "/ui/nowhere/at/all" },
  { name: "no-object", path: "/ui/routes/no-such-route" },
  // The last one, when there has been traffic for a while.
  { name: "overview", path: "/ui/", kept: "phone", then: async (page) => expect(page.locator(".chart canvas")).toHaveCount(4) },
];

test.beforeAll(async () => {
  if ((await call("GET", "/v1/services/storefront")).status === 200) return; // a test before has failed, and this begins anew
  await fill();
  await expect.poll(async () => (await call("GET", "/v1/status")).json.rejected.length, { timeout: 60_000 }).toBeGreaterThan(0);
  await expect.poll(async () => (await call("GET", "/v1/proxies")).json.items.length, { timeout: 60_000 }).toBe(4);
  await expect.poll(async () => (await call("GET", "/v1/metrics/summary")).json.unhealthy.length, { timeout: 60_000 }).toBeGreaterThan(0);
});

for (const look of looks)
  test.describe(look.name, () => {
    test.use(screen(look));

    test(`every page, ${look.name}`, async ({ page }) => {
      test.setTimeout(1_800_000);
      page.on("dialog", (d) => void d.accept()); // what is half written is left
      await page.goto("/ui/");
      await looksWell(page, "sign-in-token", look, "images/pages");
      await signIn(page);
      for (const v of views)
        await test.step(v.name, async () => {
          await page.goto(v.path);
          await settled(page);
          await v.then?.(page, look);
          await looksWell(page, v.name, look, v.kept && (!look.phone || v.kept === "phone") ? "images" : "images/pages");
        });
      if (look.phone)
        await test.step("menu", async () => {
          await page.goto("/ui/");
          await page.getByRole("button", { name: "Open the menu" }).click();
          await expect(page.getByRole("navigation", { name: "Main" }).getByRole("link", { name: "Overview" })).toBeInViewport();
          await looksWell(page, "menu", look, "images/pages");
        });
    });
  });

