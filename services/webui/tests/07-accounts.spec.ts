import { call, expect, field, looks, looksWell, screen, signIn, system, test } from "./system";

const password = "nine boats sleep under glass";

/** Signs in with a password, by the page. */
async function enter(page: import("@playwright/test").Page, user: string, secret: string) {
  await page.goto("/ui/");
  await field(page, "User").fill(user);
  await field(page, "Password").fill(secret);
  await page.getByRole("button", { name: "Sign in", exact: true }).click();
}
const inside = (page: import("@playwright/test").Page) => expect(page.getByRole("navigation", { name: "Main" })).toBeAttached();

test("the first user is made with the bootstrap token, signs in with a password, and makes a token of his own", async ({ page, browser }) => {
  await signIn(page, "/ui/users");
  await expect(page.getByText("There are no users yet")).toBeVisible();
  await page.getByRole("button", { name: "New user" }).click();
  const dialog = page.getByRole("dialog");
  await field(dialog, "Name").fill("ann");
  await field(dialog, "Password").fill("short");
  await dialog.getByRole("button", { name: "Make the user" }).click();
  await expect(dialog.getByText("give it 12 to 256")).toBeVisible();
  await field(dialog, "Password").fill(password);
  await dialog.getByRole("button", { name: "Make the user" }).click();
  await expect(dialog).toBeHidden();
  await expect(page.getByRole("button", { name: "Change ann" })).toBeVisible();

  const context = await browser.newContext();
  const other = await context.newPage();
  await enter(other, "ann", "wrong");
  await expect(other.getByText("the name or the password is wrong")).toBeVisible();
  await enter(other, "ann", password);
  await inside(other);
  const kept = await other.evaluate(() => ({ cookie: document.cookie, local: { ...localStorage }, session: { ...sessionStorage }, html: document.documentElement.outerHTML }));
  expect(JSON.stringify(kept)).not.toContain(password);

  await other.getByRole("button", { name: "Signed in as ann" }).click();
  await other.getByRole("menuitem", { name: "Your account" }).click();
  await expect(other.getByText("This one")).toBeVisible();
  await other.getByRole("button", { name: "New token" }).click();
  await field(other.getByRole("dialog"), "Name").fill("ci");
  await other.getByRole("dialog").getByRole("button", { name: "Make the token" }).click();
  const secret = await other.getByText(/^mp_/).textContent();
  const by = (token: string | null) => fetch(`${system.api}/v1/routes`, { headers: { Authorization: `Bearer ${token}` } });
  expect((await by(secret)).status).toBe(200);
  await other.getByRole("table", { name: "Tokens" }).getByRole("button", { name: "Delete" }).click();
  await other.getByRole("dialog").getByRole("button", { name: "Delete" }).click();
  await expect(other.getByText("You have no tokens")).toBeVisible();
  expect((await by(secret)).status).toBe(401);

  // A second browser of his is signed out from here, and by another password.
  const third = await (await browser.newContext()).newPage();
  await enter(third, "ann", password);
  await inside(third);
  await other.reload();
  await other.getByRole("table", { name: "Sessions" }).getByRole("button", { name: "Sign out" }).click();
  await expect(other.getByRole("table", { name: "Sessions" }).getByRole("button", { name: "Sign out" })).toHaveCount(0);
  await third.reload();
  await expect(field(third, "Password")).toBeVisible();
  await field(other, "Present password").fill(password);
  await field(other, "New password").fill(`${password} again`);
  await other.getByRole("button", { name: "Change the password" }).click();
  await expect(other.getByText("You have another password")).toBeVisible();
  await other.reload();
  await inside(other);
  await third.context().close();
  await context.close();
});

test("what a viewer may not, the pages do not offer and the API refuses; being disabled holds at once", async ({ page, browser }) => {
  expect((await call("POST", "/v1/users", { name: "vera", role: "viewer", password })).status).toBe(201);
  await enter(page, "vera", password);
  await inside(page);
  await expect(page.getByRole("link", { name: "Users" })).toHaveCount(0);
  await page.goto("/ui/users");
  await expect(page.getByText("Users are for admins")).toBeVisible();
  expect(await page.evaluate(async () => (await fetch("/v1/users")).status)).toBe(403);
  expect(await page.evaluate(async () => (await fetch("/v1/routes/x", { method: "PUT", body: '{"spec":{"direct_response":{"status":200}}}' })).status)).toBe(403);

  const admin = await (await browser.newContext()).newPage();
  await admin.goto("/ui/users");
  await admin.getByRole("button", { name: "Use a token" }).click();
  await field(admin, "Token").fill(system.token);
  await admin.getByRole("button", { name: "Sign in", exact: true }).click();
  await admin.getByRole("button", { name: "Change vera" }).click();
  await admin.getByRole("menuitem", { name: "Disable" }).click();
  await admin.getByRole("dialog").getByRole("button", { name: "Disable" }).click();
  await expect(admin.getByText("Disabled")).toBeVisible();
  await page.reload();
  await expect(field(page, "Password")).toBeVisible();
  await enter(page, "vera", password);
  await expect(page.getByText("or the user is disabled")).toBeVisible();
  await admin.context().close();
});

test("a provider signs in whom his groups let in, and says why it does not", async ({ page }) => {
  await page.goto("/ui/");
  await page.getByRole("link", { name: "Sign in with Example" }).click();
  await page.locator("#username").fill("carol");
  await page.locator("#password").fill("a password at the provider");
  await page.getByRole("button", { name: /login/i }).click();
  await inside(page);
  await expect(page).toHaveURL(/\/ui\/$/);
  await page.getByRole("button", { name: /^Signed in as / }).click();
  await expect(page.getByText("User carol, role operator")).toBeVisible();
  await page.goto("/ui/account");
  await expect(page.getByText("have no password here")).toBeVisible();
  // An answer that this browser has not asked for.
  await page.context().clearCookies();
  await page.goto("/v1/session/oidc/callback?code=x&state=y");
  await expect(page.getByText("not for a sign-in that this browser had begun")).toBeVisible();
});

for (const look of looks)
  test(`signing in, users and account look well: ${look.name}`, async ({ browser }) => {
    const context = await browser.newContext(screen(look));
    const page = await context.newPage();
    const name = `look-${look.name}`;
    expect((await call("POST", "/v1/users", { name, role: "admin", password })).status).toBe(201);
    await page.goto("/ui/");
    await expect(field(page, "User")).toBeVisible();
    await looksWell(page, "sign-in", look, look.phone ? "images/pages" : "images");
    await enter(page, name, password);
    await inside(page);
    await page.goto("/ui/users");
    await expect(page.getByRole("button", { name: `Change ${name}` })).toBeVisible();
    await looksWell(page, "users", look, "images/pages");
    await page.goto("/ui/account");
    await expect(page.getByText("This one")).toBeVisible();
    await looksWell(page, "account", look, "images/pages");
    await context.close();
  });
