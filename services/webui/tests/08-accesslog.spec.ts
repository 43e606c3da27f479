import { ask, call, expect, field, looks, looksWell, screen, signIn, system, test } from "./system";

test.beforeAll(async () => {
  const done = await call("POST", "/v1/apply?wait=live", {
    resources: [
      { kind: "Route", name: "watched", spec: { hosts: ["watched.example.com"], direct_response: { status: 200, body: "seen\n" } } },
      { kind: "Route", name: "watched-broken", spec: { hosts: ["watched.example.com"], path: { prefix: "/broken" }, direct_response: { status: 503, body: "no\n" } } },
    ],
  });
  expect(done.status, JSON.stringify(done.json)).toBe(200);
});
test.afterAll(async () => {
  for (const name of ["watched", "watched-broken"]) await call("DELETE", `/v1/routes/${name}`);
});

test("requests are watched as they are answered", async ({ page }) => {
  await signIn(page);
  await page.getByRole("link", { name: "Access log" }).click();
  const rows = page.getByRole("table", { name: "Requests" });
  await expect(page.getByText("No such request yet")).toBeVisible();
  await expect(page.getByText("Live from 1 Envoy")).toBeVisible();

  await test.step("a row comes, its query does not", async () => {
    await ask("watched.example.com", "/seen?token=a-secret-of-somebody");
    const row = rows.getByRole("row").filter({ hasText: "watched.example.com/seen" });
    await expect(row).toBeVisible({ timeout: 2_000 });
    await expect(row).toContainText("200");
    await expect(row.getByRole("link", { name: "watched", exact: true })).toBeVisible();
    await expect(page.locator("body")).not.toContainText("a-secret-of-somebody");
  });

  await test.step("filters are in the page's address, and hold", async () => {
    await page.getByRole("combobox", { name: "Status" }).click();
    await page.getByRole("option", { name: "5xx", exact: true }).click();
    await expect(page).toHaveURL(/status=5xx/);
    await expect(page.getByText("Live from 1 Envoy")).toBeVisible();
    await ask("watched.example.com", "/fine");
    await ask("watched.example.com", "/broken/a");
    await expect(rows.getByRole("row").filter({ hasText: "/broken/a" })).toContainText("503");
    await expect(rows.getByRole("row").filter({ hasText: "/fine" })).toHaveCount(0);
    await field(page, "Host").fill("another.example.com");
    await expect(page).toHaveURL(/host=another/);
    await page.goto("/ui/access-log?host=*.example.com&path=/chosen");
    await expect(page.getByText("Live from 1 Envoy")).toBeVisible();
    await ask("watched.example.com", "/other");
    await ask("watched.example.com", "/chosen");
    await expect(rows.getByRole("row").filter({ hasText: "/chosen" })).toBeVisible();
    await expect(rows.getByRole("row").filter({ hasText: "/other" })).toHaveCount(0);
  });

  await test.step("a route's page leads to its requests", async () => {
    await page.goto("/ui/routes/watched");
    await page.getByRole("button", { name: "More actions" }).click();
    await page.getByRole("menuitem", { name: "Watch its requests" }).click();
    await expect(page).toHaveURL(/access-log\?route=watched$/);
    await page.goto("/ui/access-log?host=*.example.com&path=/chosen");
    await expect(page.getByText("Live from 1 Envoy")).toBeVisible();
  });

  await test.step("a pause holds what is shown, and loses nothing", async () => {
    await page.getByRole("button", { name: "Pause" }).click();
    await ask("watched.example.com", "/chosen/meanwhile");
    await expect(page.getByRole("button", { name: "Go on (1 new)" })).toBeVisible();
    await expect(rows.getByRole("row").filter({ hasText: "/chosen/meanwhile" })).toHaveCount(0);
    await page.getByRole("button", { name: /Go on/ }).click();
    await expect(rows.getByRole("row").filter({ hasText: "/chosen/meanwhile" })).toBeVisible();
  });

  await test.step("a row opens its details, and they lead on", async () => {
    await rows.getByRole("button", { name: "watched.example.com/chosen/meanwhile" }).click();
    const dialog = page.getByRole("dialog");
    await expect(dialog.getByText("marchproxy-node")).toBeVisible();
    await expect(dialog.getByRole("link", { name: "watched", exact: true })).toHaveAttribute("href", "/ui/routes/watched");
    await dialog.getByRole("link", { name: "Try a request like it" }).click();
    await expect(page).toHaveURL(/\/ui\/try\?/);
    await expect(field(page, "Host")).toHaveValue("watched.example.com");
    await expect(field(page, "Path")).toHaveValue("/chosen/meanwhile");
    await expect(page.getByRole("region", { name: "What happens" }).getByText(/as of revision/)).toBeVisible();
  });
});

test("an address that asks for what there is not says so", async ({ page }) => {
  await signIn(page, "/ui/access-log?status=nonsense");
  await expect(page.getByText("must look like 404,5xx")).toBeVisible();
  await page.goto("/ui/access-log?gateway=nowhere");
  await expect(page.getByText("No Envoy is connected that this could be asked of")).toBeVisible();
});

test("a connection that is lost is said, and comes back", async ({ page, context }) => {
  await signIn(page, "/ui/access-log?host=watched.example.com");
  await expect(page.getByText("Live from 1 Envoy")).toBeVisible();
  await context.setOffline(true);
  const pid = (JSON.parse((await import("node:fs")).readFileSync(system.runFile, "utf8")) as { pids: Record<string, number> }).pids["api"];
  process.kill(pid!, "SIGKILL");
  await expect(page.getByText("Requests that are answered meanwhile are not shown")).toBeVisible();
  await context.setOffline(false);
  await expect(page.getByText("Live from 1 Envoy")).toBeVisible({ timeout: 60_000 });
  await expect(async () => {
    await ask("watched.example.com", "/again");
    await expect(page.getByRole("row").filter({ hasText: "/again" }).first()).toBeVisible({ timeout: 1_500 });
  }).toPass();
});

for (const look of looks)
  test.describe(look.name, () => {
    test.use(screen(look));
    test(`it looks well, ${look.name}`, async ({ page }) => {
      await signIn(page, "/ui/access-log");
      await looksWell(page, "access-log-empty", look);
      await expect(page.getByText("Live from 1 Envoy")).toBeVisible();
      await expect(async () => {
        await ask("watched.example.com", "/broken/" + "long/".repeat(60));
        await ask("watched.example.com", "/seen");
        await ask("nobody.example.com", "/");
        await expect(page.getByRole("row").filter({ hasText: "watched.example.com/seen" }).first()).toBeVisible({ timeout: 1_500 });
      }).toPass();
      await looksWell(page, "access-log-rows", look);
      await page.getByRole("button", { name: "watched.example.com/seen" }).first().click();
      await expect(page.getByRole("dialog")).toBeVisible();
      await looksWell(page, "access-log-row", look);
    });
  });
