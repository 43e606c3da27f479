import AxeBuilder from "@axe-core/playwright";
import { expect, test as base, type Locator, type Page } from "@playwright/test";
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
  backendPort: Number(need("MARCHPROXY_BACKEND_PORT")),
  runFile: need("MARCHPROXY_RUN"),
  /** Where screenshots go, where they are asked for. */
  shots: process.env["MARCHPROXY_SHOTS"] ?? "",
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
export async function accessible(page: Page) {
  const found = await new AxeBuilder({ page }).withTags(["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]).analyze();
  const lines = found.violations.map((v) => `${v.id}: ${v.help}\n  ${v.nodes.slice(0, 4).map((n) => `${n.target.join(" ")} — ${n.any[0]?.message ?? n.failureSummary ?? ""}`).join("\n  ")}`);
  expect(lines, `${page.url()} is not accessible`).toEqual([]);
}

export async function shot(page: Page, name: string) {
  if (system.shots) await page.screenshot({ path: `${system.shots}/${name}.png`, animations: "disabled" });
}
