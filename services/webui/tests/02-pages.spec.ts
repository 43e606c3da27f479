import { ask, call, expect, field, paste, signIn, system, test } from "./system";

const route = (host: string, body: string, more = {}) => ({ spec: { hosts: [host], direct_response: { status: 200, body }, ...more } });

test("a list filters and sorts as its address says", async ({ page }) => {
  await call("POST", "/v1/apply", {
    resources: Array.from({ length: 40 }, (_, i) => ({ kind: "Route", name: `shop-${i}`, owner: i % 2 ? "team-a" : undefined, ...route(`shop-${i}.example.com`, "x") })),
  });
  await signIn(page, "/ui/routes?q=shop-1&sort=-name");
  const rows = page.getByRole("table", { name: "Routes" }).getByRole("row");
  await expect(rows.nth(1).getByRole("link")).toHaveText("shop-19");
  await page.getByRole("button", { name: "Name" }).click(); // from the last first to none
  await page.getByRole("button", { name: "Name" }).click();
  await expect(page).toHaveURL(/sort=name/);
  await expect(rows.nth(1).getByRole("link")).toHaveText("shop-1");
  await page.getByRole("combobox", { name: "Owner" }).click();
  await page.getByRole("option", { name: "team-a" }).click();
  await expect(page.getByRole("status").filter({ hasText: "of" })).toContainText("6 of");
  await page.reload();
  await expect(page.getByRole("status").filter({ hasText: "of" })).toContainText("6 of");
  await page.getByLabel("Filter routes").fill("nothing is like this");
  await expect(page.getByText("Nothing fits the filter")).toBeVisible();
});

test("mistakes are told beside the field, while it is written, and text and form are the same object", async ({ page }) => {
  await signIn(page, "/ui/routes/-/new");
  await field(page, "Name").fill("Wrong Name");
  await expect(page.getByText("Lower case letters, digits and hyphens")).toBeVisible();
  await field(page, "Name").fill("typed");
  await field(page, "Hosts").fill("typed.example.com");
  await page.keyboard.press("Enter");
  await field(page, "Service").fill("nowhere");
  await expect(page.getByText(/Service.*nowhere/).first()).toBeVisible();
  await expect(page.getByText("1 thing is to be put right")).toBeVisible();

  await page.getByRole("tab", { name: "YAML" }).click();
  const editor = page.getByRole("textbox", { name: "Route as YAML" });
  await expect(editor).toContainText("typed.example.com");
  await paste(editor, "spec:\n  hosts: [typed.example.com]\n  direct_response: {status: 200, body: typed}\n  methods: [GET\n");
  await expect(page.getByText("This cannot be read")).toBeVisible();
  await paste(editor, "spec:\n  hosts: [typed.example.com]\n  direct_response: {status: 200, body: typed}\n  timeout: 5s\n");
  await page.getByRole("tab", { name: "Form" }).click();
  await expect(field(page, "Timeout")).toHaveValue("5s");
  await page.getByRole("tab", { name: "JSON" }).click();
  await expect(page.getByRole("textbox", { name: "Route as JSON" })).toContainText('"timeout": "5s"');
  await page.getByRole("button", { name: "Review and save" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Save" }).click();
  await expect(page.getByRole("dialog").getByText("Live", { exact: true })).toBeVisible();
  expect((await ask("typed.example.com")).body).toBe("typed");
});

test("an edit shows its difference first, and a rollback what it takes back", async ({ page }) => {
  await call("PUT", "/v1/routes/edited?wait=live", route("edited.example.com", "before"));
  const before = (await call("GET", "/v1/status")).json.revision as number;
  await signIn(page, "/ui/routes/edited");
  await field(page, "Body").fill("after");
  await page.getByRole("button", { name: "Review and save" }).click();
  const dialog = page.getByRole("dialog");
  await expect(dialog.locator('.diff-line[data-sign="-"]')).toContainText("before");
  await expect(dialog.locator('.diff-line[data-sign="+"]')).toContainText("after");
  expect((await ask("edited.example.com")).body, "a review changes nothing").toBe("before");
  await dialog.getByRole("button", { name: "Save" }).click();
  await expect(dialog.getByText("Live", { exact: true })).toBeVisible();
  expect((await ask("edited.example.com")).body).toBe("after");
  await dialog.getByRole("button", { name: "Done" }).click();

  await page.goto(`/ui/revisions/${before}`);
  await page.getByRole("button", { name: "Go back to it…" }).click();
  await expect(dialog.locator('.diff-line[data-sign="+"]')).toContainText("before");
  await dialog.getByRole("button", { name: "Go back" }).click();
  await expect(page.getByText(`rollback to revision ${before}`)).toBeVisible();
  expect((await ask("edited.example.com")).body).toBe("before");

  // Any two revisions.
  await page.goto("/ui/revisions");
  await page.getByLabel(`Choose revision ${before} to compare`).check();
  await page.getByLabel(`Choose revision ${before + 1} to compare`).check();
  await expect(dialog.getByText(`From revision ${before} to ${before + 1}`)).toBeVisible();
  await expect(dialog.locator('.diff-line[data-sign="+"]')).toContainText("after");
  // Who has done all that.
  await page.goto("/ui/audit?object=edited");
  await expect(page.getByRole("table", { name: "Audit" }).getByRole("row")).toHaveCount(4);
});

test("two people who edit one object see both versions", async ({ page }) => {
  await call("PUT", "/v1/routes/both?wait=live", route("both.example.com", "first"));
  await signIn(page, "/ui/routes/both");
  await field(page, "Body").fill("mine");
  await call("PUT", "/v1/routes/both?wait=live&message=meanwhile", route("both.example.com", "theirs", { timeout: "7s" }));
  await expect(page.getByText("Somebody else has changed this meanwhile")).toBeVisible();
  await page.getByRole("button", { name: "Review and save" }).click();
  const dialog = page.getByRole("dialog");
  await expect(dialog.getByLabel("Their changes")).toContainText("theirs");
  await expect(dialog.getByLabel("Your changes")).toContainText("mine");
  await expect(dialog.getByText("meanwhile")).toBeVisible();
  await dialog.getByRole("button", { name: "Save mine over theirs…" }).click();
  await expect(dialog.locator('.diff-line[data-sign="-"]').first()).toContainText("theirs");
  await dialog.getByRole("button", { name: "Save" }).click();
  await expect(dialog.getByText("Live", { exact: true })).toBeVisible();
  expect((await ask("both.example.com")).body).toBe("mine");
});

test("what Envoy refuses says why, in Envoy's words, on the object and on the overview", async ({ page }) => {
  await call("PUT", "/v1/routes/bad?wait=live", route("bad.example.com", "before"));
  await signIn(page, "/ui/routes/bad");
  await page.getByRole("tab", { name: "YAML" }).click();
  await paste(page.getByRole("textbox", { name: "Route as YAML" }), `spec:\n  hosts: [bad.example.com]\n  path: {regex: '/[a-z]{1,300}'}\n  direct_response: {status: 200, body: after}\n`);
  await page.getByRole("button", { name: "Review and save" }).click();
  const dialog = page.getByRole("dialog");
  await dialog.getByRole("button", { name: "Save" }).click();
  await expect(dialog.getByText("Envoy refuses it; the last good version is served")).toBeVisible();
  await expect(dialog.getByText(/regex/i).first()).toBeVisible();
  await dialog.getByRole("button", { name: "Done" }).click();
  await expect(page.getByText("Envoy refuses this")).toBeVisible();
  expect((await ask("bad.example.com")).body).toBe("before");
  await page.goto("/ui/");
  await expect(page.getByText("Envoy refuses Route bad")).toBeVisible();
  await page.goto("/ui/routes?state=rejected");
  await expect(page.getByRole("table").getByRole("link", { name: "bad" })).toBeVisible();
  await call("PUT", "/v1/routes/bad?wait=live", route("bad.example.com", "corrected"));
  await expect(page.getByText("Nothing fits the filter")).toBeVisible();
});

test("a viewer reads everything and is offered nothing else, and what others own is said", async ({ page }) => {
  const viewer = (await call("POST", "/v1/tokens", { name: "reader", role: "viewer" })).json.token as string;
  await signIn(page, "/ui/routes", viewer);
  await expect(page.getByRole("link", { name: "demo" })).toBeVisible();
  await expect(page.getByRole("link", { name: "New route" })).toHaveCount(0);
  await page.getByRole("link", { name: "demo" }).click();
  await expect(page.getByText("Writing a route needs the role editor")).toBeVisible();
  await expect(field(page, "Hosts")).toBeDisabled();
  await call("DELETE", "/v1/tokens/reader");
  await expect(page.getByRole("button", { name: "Sign in" })).toBeVisible(); // the session is over with the token

  await page.context().clearCookies();
  await call("PUT", "/v1/routes/kept", { owner: "site.yaml", ...route("kept.example.com", "kept") });
  await signIn(page, "/ui/routes/kept");
  await expect(page.getByText("site.yaml keeps this route")).toBeVisible();
});

test("the api ends under an open page, which says so and catches up", async ({ page }) => {
  await signIn(page, "/ui/routes?q=after-the-restart");
  await expect(page.getByText("Nothing fits the filter")).toBeVisible();
  const { readFileSync } = await import("node:fs");
  const pid = () => (JSON.parse(readFileSync(system.runFile, "utf8")) as { pids: Record<string, number> }).pids["api"] ?? 0;
  const old = pid();
  process.kill(old, "SIGKILL");
  await expect(page.getByText("The connection to the API is lost")).toBeVisible();
  await expect.poll(async () => {
    try {
      return (await call("PUT", "/v1/routes/after-the-restart", route("restart.example.com", "x"))).status < 300;
    } catch {
      return false;
    }
  }, { timeout: 60_000 }).toBe(true);
  await expect(page.getByText("The connection to the API is lost")).toBeHidden();
  await expect(page.getByRole("link", { name: "after-the-restart" })).toBeVisible();
});
