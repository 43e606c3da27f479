import AxeBuilder from "@axe-core/playwright";
import { expect, test as base, type Locator, type Page } from "@playwright/test";
import { mkdirSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import { request } from "node:http";

const need = (name: string) => {
  const v = process.env[name];
  if (!v) throw new Error(`${name} is not set; go test ./test/webui starts the system and sets it`);
  return v;
};
export const system = {
  token: need("MARCHPROXY_TOKEN"),
  api: need("MARCHPROXY_API"),
  proxyPort: Number(need("MARCHPROXY_PROXY_PORT")),
  /** Of the demo's backend, where the system has one. */
  backendPort: Number(process.env["MARCHPROXY_BACKEND_PORT"] ?? 0),
  runFile: need("MARCHPROXY_RUN"),
  /** The documentation's directory, for the pictures in it, and where a screenshot of every page goes; "" where none are asked for. */
  shots: process.env["MARCHPROXY_SHOTS"] ?? "",
  every: process.env["MARCHPROXY_EVERY"] ?? "",
  /** The least score of Lighthouse for performance. */
  score: Number(process.env["MARCHPROXY_SCORE"] || 95),
  /** Processes of further Envoys, and certificates to store, by name. */
  envoys: JSON.parse(process.env["MARCHPROXY_ENVOYS"] ?? "{}") as Record<string, number>,
  chains: JSON.parse(process.env["MARCHPROXY_CHAINS"] ?? "{}") as Record<string, { chain: string; private_key?: string }>,
};

/** What the browser's console says that it should not: errors, and what the policy has blocked. */
type Fixtures = { problems: string[] };
export const test = base.extend<Fixtures>({
  problems: [
    async ({ context }, use) => {
      const said: string[] = [];
      const watch = (page: Page) => {
        page.on("console", (m) => {
          // The browser writes a line for each status of 400 and above, asked for or not.
          if (m.type() === "error" && !m.text().startsWith("Failed to load resource")) said.push(m.text());
        });
        page.on("pageerror", (e) => said.push(String(e)));
      };
      context.on("page", watch);
      await use(said);
      expect(said, "the console has errors").toEqual([]);
    },
    { auto: true },
  ],
});
export { expect };

/** A control by its label, with or without the star of what is needed. */
export const field = (page: Page | Locator, label: string) => page.getByLabel(new RegExp(`^${label}( \\*)?$`)).and(page.locator("input, textarea"));

/** Has a text editor hold a text, pasted as people do. */
export async function paste(editor: Locator, text: string) {
  await editor.click();
  await editor.press("Control+a");
  await editor.evaluate((box, pasted) => {
    const clipboardData = new DataTransfer();
    clipboardData.setData("text/plain", pasted);
    box.dispatchEvent(new ClipboardEvent("paste", { clipboardData, bubbles: true, cancelable: true }));
  }, text);
}

export async function signIn(page: Page, path = "/ui/", token = system.token) {
  await page.goto(path);
  await field(page, "Token").fill(token);
  await page.getByRole("button", { name: "Sign in" }).click();
  await expect(page.getByRole("navigation", { name: "Main" })).toBeAttached();
}

/** A call of the API beside the browser, with the token. */
export async function call(method: string, path: string, body?: unknown): Promise<{ status: number; json: any }> {
  const r = await fetch(system.api + path, {
    method,
    headers: { Authorization: `Bearer ${system.token}`, "Content-Type": "application/json" },
    ...(body !== undefined && { body: JSON.stringify(body) }),
  });
  const text = await r.text();
  return { status: r.status, json: text ? JSON.parse(text) : undefined };
}

/** Asks the real Envoy for a host. */
export const ask = (host: string, path = "/") =>
  new Promise<{ status: number; body: string }>((done, failed) => {
    const r = request({ host: "127.0.0.1", port: system.proxyPort, path, headers: { Host: host } }, (res) => {
      let body = "";
      res.on("data", (c: Buffer) => (body += c.toString()));
      res.on("end", () => done({ status: res.statusCode ?? 0, body }));
    });
    r.on("error", failed);
    r.end();
  });

/** WCAG AA as far as axe can tell. */
async function accessible(page: Page, what: string) {
  const found = await new AxeBuilder({ page }).withTags(["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]).analyze();
  const lines = found.violations.map((v) => `${v.id}: ${v.help}\n  ${v.nodes.slice(0, 4).map((n) => `${n.target.join(" ")} — ${n.any[0]?.message ?? n.failureSummary ?? ""}`).join("\n  ")}`);
  expect.soft(lines, `${what} is not accessible`).toEqual([]);
}

/** How a page is looked at. */
export type Look = { name: string; scheme: "light" | "dark"; phone: boolean };
export const looks: Look[] = [
  { name: "light", scheme: "light", phone: false },
  { name: "dark", scheme: "dark", phone: false },
  { name: "phone-light", scheme: "light", phone: true },
  { name: "phone-dark", scheme: "dark", phone: true },
];
export const screen = (l: Look) => ({
  viewport: l.phone ? { width: 390, height: 844 } : { width: 1440, height: 900 },
  colorScheme: l.scheme,
  isMobile: l.phone,
  hasTouch: l.phone,
});

/** Waits until a page has what it shows, and stands still. */
export async function settled(page: Page) {
  await expect(page.locator("h1").first()).toBeVisible();
  await expect(page.locator('[aria-busy="true"], .mantine-Loader-root')).toHaveCount(0);
  await page.evaluate(async () => {
    await document.fonts.ready;
    await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
  });
}

/** Says what was measured, and keeps it where the machine's figures are kept. */
export function figure(said: string) {
  console.log(said);
  if (system.every) writeFileSync(`${system.every}/figures.txt`, `${said}\n`, { flag: "a" });
}

/** Writes a picture of what is seen, as WebP, which a screenshot of Playwright's cannot be: a quarter of a PNG's size. */
async function picture(page: Page, file: string) {
  const devtools = await page.context().newCDPSession(page);
  const { data } = await devtools.send("Page.captureScreenshot", { format: "webp", quality: 70 });
  await devtools.detach();
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, Buffer.from(data, "base64"));
}

/**
 * A page as it should look: nothing is wider than the window, axe finds nothing, and a picture where one is asked for: for
 * docs/images that the documentation shows, and docs/images/pages that shows the others; "none" where both have better ones.
 */
export async function looksWell(page: Page, name: string, look: Look, goes: "images" | "images/pages" | "none" = "none") {
  await settled(page);
  const file = `${name}-${look.name}`;
  if (system.every) await page.screenshot({ path: `${system.every}/${file}.png`, animations: "disabled" });
  if (system.shots && goes !== "none") await picture(page, `${system.shots}/${goes}/${file}.webp`);
  const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  expect.soft(wide, `${name} in ${look.name} is wider than the window, by this many pixels`).toBe(0);
  await accessible(page, `${name} in ${look.name}`);
}
