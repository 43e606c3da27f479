import { expect, looks, looksWell, screen, settled, signIn, test } from "./system";

// What a newcomer sees first: pages with nothing to show, which say what belongs there and how it comes.
const pages: [string, string][] = [
  ["overview", "/ui/"],
  ["routes", "/ui/routes"],
  ["certificates", "/ui/certificates"],
  ["licenses", "/ui/licenses"],
  ["topology", "/ui/topology"],
  ["nodes", "/ui/nodes"],
  ["envoys", "/ui/envoys"],
  ["revisions", "/ui/revisions"],
  ["audit", "/ui/audit?object=nobody"],
];

for (const look of looks)
  test.describe(look.name, () => {
    test.use(screen(look));
    test(`an empty system, every page, ${look.name}`, async ({ page }) => {
      test.setTimeout(600_000);
      await signIn(page);
      for (const [name, path] of pages)
        await test.step(name, async () => {
          await page.goto(path);
          await looksWell(page, `empty-${name}`, look, name === "overview" ? "images/pages" : "none");
        });
    });
  });

test("an empty list leads to the form that fills it", async ({ page }) => {
  await signIn(page, "/ui/services");
  await settled(page);
  await expect(page.getByText("No services yet")).toBeVisible();
  await page.getByRole("main").getByRole("link", { name: "New service" }).last().click();
  await expect(page).toHaveURL(/\/ui\/services\/-\/new$/);
});
