import { ask, call, expect, field, signIn, system, test } from "./system";

test("a wrong token is refused in words, and a right one begins a session that scripts cannot read", async ({ page, context }) => {
  await page.goto("/");
  await expect(page).toHaveURL(/\/ui\/$/);
  await field(page, "Token").fill("mp_wrong");
  await page.getByRole("button", { name: "Sign in" }).click();
  await expect(page.getByText("the token is not known")).toBeVisible();
  await field(page, "Token").fill(system.token);
  await page.getByRole("button", { name: "Sign in" }).click();
  await expect(page.getByRole("heading", { name: "Overview" })).toBeVisible();

  const cookie = (await context.cookies()).find((c) => c.name === "__Host-marchproxy");
  expect(cookie).toMatchObject({ httpOnly: true, secure: true, sameSite: "Strict", path: "/" });
  const kept = await page.evaluate(() => ({ cookie: document.cookie, local: { ...localStorage }, session: { ...sessionStorage }, html: document.documentElement.outerHTML }));
  expect(JSON.stringify(kept)).not.toContain(system.token);
  expect(JSON.stringify(kept)).not.toContain(cookie?.value);
  expect(page.url()).not.toContain("mp_");

  await page.reload();
  await expect(page.getByRole("heading", { name: "Overview" })).toBeVisible();
  await page.getByRole("button", { name: "Signed in as bootstrap" }).click();
  await page.getByRole("menuitem", { name: "Sign out" }).click();
  await expect(page.getByRole("button", { name: "Sign in" })).toBeVisible();
  // The cookie that was is of no use to who has kept it.
  const after = await fetch(`${system.api}/v1/session`, { headers: { Cookie: `__Host-marchproxy=${cookie?.value}` } });
  expect(after.status).toBe(401);
});

test("a newcomer puts a service behind the proxy: four clicks, and what only he knows", async ({ page }) => {
  let clicks = 0;
  await page.exposeFunction("clicked", () => clicks++);
  await page.addInitScript(() => window.addEventListener("pointerdown", () => void (window as unknown as { clicked(): void }).clicked(), true));
  await page.goto("/ui/");
  await expect(field(page, "Token")).toBeFocused();
  await page.keyboard.insertText(system.token);
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.getByRole("link", { name: "Put your own service behind the proxy" }).click();
  await expect(field(page, "Host")).toBeFocused();
  await page.keyboard.type("newcomer.test");
  await field(page, "Address").click();
  await page.keyboard.type(`127.0.0.1:${system.backendPort}`);
  await page.getByRole("button", { name: "Publish", exact: true }).click();
  await expect(page.getByText("Live", { exact: true })).toBeVisible();
  expect(await ask("newcomer.test")).toEqual({ status: 200, body: "Hello from backend\n" });
  await expect(page.getByText("curl -H 'Host: newcomer.test'")).toBeVisible();
  expect(clicks).toBe(4);

  // The same host once more, by the same name: nothing of the first one is written over.
  await page.getByRole("button", { name: "Publish another one" }).click();
  await field(page, "Host").fill("newcomer.test");
  await field(page, "Address").fill("nowhere");
  await expect(page.getByText("A host and a port, such as")).toBeVisible();
  await field(page, "Address").fill("https://192.0.2.1");
  await expect(page.getByText("There is a service or a route newcomer-test already")).toBeVisible();
  await expect(page.getByRole("button", { name: "Publish", exact: true })).toBeDisabled();
  await field(page, "Name").fill("newcomer-again");
  await expect(field(page, "Host")).toHaveAttribute("aria-invalid", "true"); // a host has one route for a path
  expect((await call("GET", "/v1/routes?q=newcomer")).json.items).toHaveLength(1);
  for (const path of ["routes", "services"]) await call("DELETE", `/v1/${path}/newcomer-test`);
});

test("a service and a route are made in the UI, and Envoy answers by them", async ({ page, browser }) => {
  await signIn(page, "/ui/services");
  await expect(page.getByRole("link", { name: "demo" })).toBeVisible();
  await page.getByRole("link", { name: "New service" }).click();
  await field(page, "Name").fill("hello");
  await field(page, "Host").fill("127.0.0.1");
  await field(page, "Port").fill(String(system.backendPort));
  await page.getByRole("button", { name: "Review and save" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Save" }).click();
  await expect(page.getByRole("dialog").getByText("Live", { exact: true })).toBeVisible();
  await page.getByRole("button", { name: "Done" }).click();
  await expect(page).toHaveURL(/\/ui\/services\/hello$/);

  // Somebody else's page sees the route come without being loaded again.
  const other = await (await browser.newContext()).newPage();
  await signIn(other, "/ui/routes");
  await expect(other.getByRole("link", { name: "demo" })).toBeVisible();

  await page.bringToFront(); // a page behind another one paints nothing, and so never comes to rest
  await page.goto("/ui/routes/-/new");
  await field(page, "Name").fill("hello");
  await field(page, "Hosts").fill("hello.test");
  await page.keyboard.press("Enter");
  await field(page, "Service").fill("hel");
  await page.getByRole("option", { name: "hello" }).click();
  await page.getByRole("button", { name: "Review and save" }).click();
  await expect(page.getByRole("dialog").getByText("hello.test")).toBeVisible();
  await page.getByRole("dialog").getByLabel("Why").fill("the first one");
  await page.getByRole("dialog").getByRole("button", { name: "Save" }).click();
  await expect(page.getByRole("dialog").getByText("serves it").first()).toBeVisible();
  await expect(other.getByRole("link", { name: "hello" })).toBeVisible({ timeout: 3_000 });
  await expect(page.getByRole("dialog").getByText("Live", { exact: true })).toBeVisible();

  expect(await ask("hello.test")).toEqual({ status: 200, body: "Hello from backend\n" });
  expect((await call("GET", "/v1/revisions?limit=1")).json.items[0].message).toBe("the first one");
  await other.context().close();
});
