import { call, expect, system } from "./system";

type Draft = { kind: string; name: string; owner?: string; labels?: Record<string, string>; spec: unknown };

const shop = { team: "shop", tier: "frontend" };
const endpoints = (net: number, n: number, port = system.backendPort || 8080) =>
  Array.from({ length: n }, (_, i) => ({ host: `10.20.${net}.${11 + i}`, port, zone: `eu-central-1${"abc"[i % 3]}` }));
const service = (name: string, net: number, n: number, more = {}, of: Partial<Draft> = {}): Draft => ({ kind: "Service", name, spec: { endpoints: endpoints(net, n), ...more }, ...of });
const route = (name: string, hosts: string[], prefix: string, to: string | Record<string, number>, more = {}, of: Partial<Draft> = {}): Draft => ({
  kind: "Route",
  name,
  spec: {
    hosts,
    path: { prefix },
    backends: typeof to === "string" ? [{ service: to }] : Object.entries(to).map(([s, weight]) => ({ service: s, weight })),
    ...more,
  },
  ...of,
});
const checked = { health_check: { http: { path: "/healthz" }, interval: "5s", timeout: "2s" } };

/** A name, and a host, as long as they may be. */
export const longName = "a-service-of-the-data-platform-team-whose-name-is-as-long-as-ok";
const longHost = `${"measurements-of-the-production-line.".repeat(5)}plant-7.example.com`;

/** What a shop of some size has. */
export const content: Draft[] = [
  service("storefront", 1, 4, checked, { owner: "site.yaml", labels: shop }),
  service("storefront-canary", 2, 1, checked, { owner: "site.yaml", labels: shop }),
  service("catalog", 3, 3, { ...checked, protocol: "grpc", health_check: { grpc: {} }, load_balancing: { policy: "least_request" } }, { owner: "site.yaml", labels: shop }),
  service("search", 4, 12, { load_balancing: { policy: "ring_hash", hash_on: [{ header: "x-user" }] } }),
  service("orders", 5, 3, { ...checked, outlier_detection: { consecutive_5xx: 5 } }, { labels: { team: "orders" } }),
  service("payments", 6, 2, { ...checked, circuit_breaker: { max_connections: 500 } }, { labels: { team: "payments", pci: "yes" } }),
  service("accounts", 7, 2, checked),
  service("mail", 8, 1),
  service("identity", 9, 2, { protocol: "http2" }),
  service("warehouse", 10, 1, { endpoints: [{ host: "warehouse.invalid", port: 8080 }] }, { owner: "docker:edge-fra-1" }),
  service(longName, 11, 2, {}, { owner: "the-deployment-pipeline-of-the-data-platform-team" }),
  { kind: "EndpointSet", name: "catalog-nomad", owner: "nomad:eu-central", spec: { service: "catalog", endpoints: endpoints(12, 4) } },
  { kind: "EndpointSet", name: "orders-docker", owner: "docker:edge-fra-1", spec: { service: "orders", endpoints: endpoints(13, 1) } },
  { kind: "LocalityDrain", name: "eu-west-1", spec: { cloud: "aws", region: "eu-west-1", reason: "Maintenance of the region's network, until Monday" } },
  {
    kind: "AuthPolicy",
    name: "customers",
    labels: shop,
    spec: {
      jwt: {
        issuers: ["https://id.example.com/"], audiences: ["shop"],
        remote_jwks: { service: "identity", path: "/.well-known/jwks.json", cache_duration: "600s" },
        required_claims: [{ claim: ["scope"], values: ["shop:buy"], words: true }],
      },
      exempt_paths: [{ path: "/healthz" }, { path: "/static/", prefix: true }],
    },
  },
  { kind: "AuthPolicy", name: "partners", spec: { tokens: [{ name: "acme", value: "the-token-of-acme-which-nobody-guesses" }, { name: "globex", value: "the-token-of-globex-which-nobody-guesses" }] } },
  { kind: "RateLimitPolicy", name: "api-clients", spec: { requests_per_second: 50, requests_burst: 100, gateways: ["default"] } },
  { kind: "RateLimitPolicy", name: "office", spec: { cidrs: ["192.0.2.0/24", "2001:db8::/32"], packets_per_second: 5000, action: "observe" } },
  { kind: "CertificateIssuer", name: "lets-encrypt", spec: { directory: "https://127.0.0.1:1/directory", terms_agreed: true, contacts: ["ops@example.com"], http01: {} } },
  { kind: "Certificate", name: "checkout-example-com", spec: { issuer: "lets-encrypt", names: ["checkout.example.com", "pay.example.com"] } },
  route("storefront", ["shop.example.com", "www.shop.example.com", "shop.example.org"], "/", { storefront: 95, "storefront-canary": 5 }, { timeout: "10s", retry: { conditions: ["5xx", "reset"], attempts: 2 } }, { owner: "site.yaml", labels: shop }),
  route("shop-search", ["shop.example.com"], "/search", "search", { timeout: "2s" }, { owner: "site.yaml", labels: shop }),
  route("shop-cart", ["shop.example.com"], "/cart", "orders", { auth_policy: "customers" }, { owner: "site.yaml", labels: shop }),
  route("api-catalog", ["api.example.com"], "/v1/catalog/", "catalog", { auth_policy: "partners", cors: { allow_origins: [{ exact: "https://shop.example.com" }] } }),
  route("api-orders", ["api.example.com"], "/v1/orders/", "orders", { auth_policy: "partners", local_rate_limit: { requests: 200, per: "1s" } }),
  route("api-payments", ["api.example.com"], "/v1/payments/", "payments", { auth_policy: "partners", timeout: "30s" }),
  route("api-accounts", ["api.example.com"], "/v1/accounts/", "accounts", { auth_policy: "partners" }),
  route("identity", ["id.example.com"], "/", "identity"),
  route("webmail", ["mail.example.com"], "/", "mail", { websocket: true }),
  route("stock", ["stock.internal.example.com"], "/", "warehouse"),
  route("measurements-of-the-production-line-of-every-plant-in-the-world", [longHost, "*.plant-7.example.com"], "/a/path/that/goes/on/and/on/until/nobody/remembers/where/it/began/", longName, {}, { owner: "the-deployment-pipeline-of-the-data-platform-team" }),
  { kind: "Route", name: "old-shop", spec: { hosts: ["old-shop.example.com"], redirect: { host: "shop.example.com", status: 308 } } },
  { kind: "Route", name: "robots", spec: { hosts: ["shop.example.com"], path: { exact: "/robots.txt" }, direct_response: { status: 200, body: "User-agent: *\nDisallow: /cart\n" } } },
];

/** Stores it, with a history, a change that is refused by Envoy, and who did it. */
export async function fill() {
  const certificates = Object.entries(system.chains).map(([name, c]) => ({ kind: "Certificate", name, spec: c }));
  const done = await call("POST", "/v1/apply?message=The+shop+moves+in", { resources: [...content, ...certificates] });
  expect(done.status, JSON.stringify(done.json)).toBeLessThan(300);
  const put = async (path: string, spec: unknown, message: string, more = {}) => {
    const r = await call("PUT", `/v1/${path}?message=${encodeURIComponent(message)}`, { spec, ...more });
    expect(r.status, JSON.stringify(r.json)).toBeLessThan(300);
  };
  const spec = (name: string) => content.find((d) => d.name === name && d.kind === "Route")?.spec as Record<string, unknown>;
  await put("routes/api-payments", { ...spec("api-payments"), timeout: "45s" }, "The bank answers slowly on Fridays");
  await put("routes/webmail", { ...spec("webmail"), timeout: "0s" }, "");
  await put("services/mail", { endpoints: endpoints(8, 2) }, "A second machine for mail");
  await put("routes/legacy-reports", { hosts: ["reports.example.com"], path: { regex: "/[a-z]{1,300}" }, direct_response: { status: 410, body: "Moved to the data platform." } }, "Reports are gone");
  const viewer = await call("POST", "/v1/tokens", { name: "dashboard", role: "viewer" });
  expect(viewer.status, JSON.stringify(viewer.json)).toBe(201);
}
