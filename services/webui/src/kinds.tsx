import {
  IconBuildingBank,
  IconCertificate,
  IconCpu,
  IconGauge,
  IconKey,
  IconLicense,
  IconLock,
  IconMapPinOff,
  IconPlug,
  IconRoute,
  IconServer2,
  IconTopologyStar3,
  type Icon,
} from "@tabler/icons-react";
import type { Issuance, Item, Json, Spec } from "~/api/client";
import { Age, Pill, type Tone } from "~/ui/bits";
import type { Column } from "~/ui/table";

/** What the pages know of a kind beside its schema. One that is not here has pages all the same. */
type About = {
  icon: Icon;
  group: "Traffic" | "Edge";
  columns?: Column<Item>[];
  /** The settings that a form shows without being asked, of what is written so far. */
  usual?: (spec: Spec) => string[];
  /** Settings that a form leaves out, because the server writes them there. */
  hides?: (spec: Spec) => string[];
  /** What one is good for, where there is none yet. */
  good?: string;
  /** What a new one begins with. */
  start?: Spec;
};

const list = (v: Json | undefined): Json[] => (Array.isArray(v) ? v : []);
const text = (v: Json | undefined): string => (typeof v === "string" || typeof v === "number" ? String(v) : "");
const map = (v: Json | undefined): Spec => (typeof v === "object" && v !== null && !Array.isArray(v) ? v : {});

const some = (all: string[], n = 2) => (all.length <= n ? all.join(", ") : `${all.slice(0, n).join(", ")} and ${all.length - n} more`);

const column = (id: string, head: string, width: string, value: (i: Item) => string | number, extra: Partial<Column<Item>> = {}): Column<Item> => ({
  id,
  head,
  width,
  value,
  cell: (i) => {
    const v = value(i);
    return <span title={String(v)}>{(typeof v === "number" && v ? v.toLocaleString("en") : v) || <span className="muted">–</span>}</span>;
  },
  ...extra,
});

export const hostsOf = (i: Item) => list(i.spec["hosts"]).map(text);
export const pathOf = (i: Item) => {
  const p = map(i.spec["path"]);
  return text(p["exact"]) || (p["regex"] ? `~ ${text(p["regex"])}` : `${text(p["prefix"]) || "/"}${p["exact"] ? "" : p["prefix"] === "/" || !p["prefix"] ? "" : "/…"}`.replace("//…", "/…"));
};
export function targetOf(i: Item): string {
  const backends = list(i.spec["backends"]).map((b) => text(map(b)["service"]));
  if (backends.length) return some(backends);
  const redirect = map(i.spec["redirect"]);
  if (i.spec["redirect"]) return `redirect ${text(redirect["status"]) || "301"} ${text(redirect["host"])}${text(redirect["path"])}`.trim();
  if (i.spec["direct_response"]) return `answers ${text(map(i.spec["direct_response"])["status"])}`;
  return "";
}
const gatewaysOf = (i: Item) => some(list(i.spec["gateways"]).map(text)) || "default";
export const endpointsOf = (i: Item) =>
  list(i.spec["endpoints"]).map((e) => {
    const host = text(map(e)["host"]);
    return `${host.includes(":") ? `[${host}]` : host}:${text(map(e)["port"])}`;
  });

const issuances: Record<string, [Tone, string]> = { waiting: ["info", "Waits for its turn"], issued: ["ok", "Issued"], failed: ["bad", "Not issued"] };
/** How far an issuer is with a certificate. */
export const issuanceWords = (i: Issuance | undefined): [Tone, string] =>
  i ? (issuances[i.step ?? ""] ?? ["info", "Being issued"]) : ["info", "Waits for its turn"];
const directories: Record<string, string> = { letsencrypt: "Let’s Encrypt", "letsencrypt-staging": "Let’s Encrypt (staging)" };

export const about: Record<string, About> = {
  routes: {
    icon: IconRoute,
    good: "A route says which hosts and paths lead to which service. What no route fits is answered 404.",
    group: "Traffic",
    usual: (s) => ["hosts", "path", ...(s["redirect"] || s["direct_response"] ? [] : ["backends"])],
    start: { hosts: [], path: { prefix: "/" }, backends: [{ service: "" }] },
    columns: [
      column("hosts", "Hosts", "minmax(180px, 1.9fr)", (i) => some(hostsOf(i)) || "*"),
      column("path", "Path", "minmax(130px, 1.2fr)", pathOf, { cell: (i) => <span className="mono" title={pathOf(i)}>{pathOf(i)}</span> }),
      column("target", "Goes to", "minmax(140px, 1.3fr)", targetOf),
      column("gateways", "Gateways", "minmax(110px, .8fr)", gatewaysOf, { wide: true }),
    ],
  },
  services: {
    icon: IconServer2,
    good: "A service says where your program listens, how requests are spread over its endpoints, and how their health is checked.",
    group: "Traffic",
    usual: () => ["endpoints", "protocol"],
    start: { endpoints: [{ host: "", port: 80 }] },
    columns: [
      column("endpoints", "Endpoints", "minmax(200px, 2fr)", (i) => endpointsOf(i).length, {
        cell: (i) => <span className="mono" title={endpointsOf(i).join(", ")}>{some(endpointsOf(i)) || "none"}</span>,
      }),
      column("protocol", "Protocol", "minmax(100px, 0.8fr)", (i) => text(i.spec["protocol"]) || "http"),
      column("balancing", "Balancing", "minmax(120px, 1fr)", (i) => text(map(i.spec["load_balancing"])["policy"]) || "round_robin", { wide: true }),
      column("checks", "Checks", "minmax(90px, 0.6fr)", (i) => (i.spec["health_check"] ? "on" : "off"), { wide: true }),
    ],
  },
  "endpoint-sets": {
    icon: IconPlug,
    good: "marchproxy-discover writes them: it watches containers and catalogs, and keeps the endpoints of your services as they are found.",
    group: "Traffic",
    usual: () => ["service", "endpoints"],
    start: { service: "", endpoints: [{ host: "", port: 80 }] },
    columns: [
      column("service", "Service", "minmax(140px, 1.4fr)", (i) => text(i.spec["service"])),
      column("endpoints", "Endpoints", "minmax(200px, 2fr)", (i) => endpointsOf(i).length, {
        cell: (i) => <span className="mono" title={endpointsOf(i).join(", ")}>{some(endpointsOf(i)) || "none"}</span>,
      }),
    ],
  },
  gateways: {
    icon: IconTopologyStar3,
    good: "A gateway is a fleet of Envoys that listen on the same ports.",
    group: "Edge",
    usual: () => ["listeners"],
    start: { listeners: [{ name: "http", port: 10000 }] },
    columns: [
      column("listeners", "Listeners", "minmax(220px, 2fr)", (i) =>
        some(list(i.spec["listeners"]).map((l) => `${text(map(l)["name"])} :${text(map(l)["port"])} ${text(map(l)["protocol"]) || "http"}`)),
      ),
      column("auth", "Auth policy", "minmax(120px, 1fr)", (i) => text(i.spec["auth_policy"]), { wide: true }),
      column("license", "License", "minmax(110px, 1fr)", (i) => text(i.spec["license"]), { wide: true }),
    ],
  },
  certificates: {
    icon: IconCertificate,
    good: "Give a chain and its private key, or name an issuer and the names: then the certificate is got, and renewed, by itself.",
    group: "Edge",
    usual: (s) => (s["issuer"] ? ["issuer", "names", "gateways"] : ["chain", "private_key", "issuer", "gateways"]),
    hides: (s) => (s["issuer"] ? ["chain", "private_key"] : []),
    start: {},
    columns: [
      column("names", "Names", "minmax(200px, 2fr)", (i) => some((list(i.spec["names"]).length ? list(i.spec["names"]) : list(map(i.spec["facts"])["dns_names"])).map(text))),
      column("ends", "Ends", "minmax(130px, 1fr)", (i) => (map(i.spec["facts"])["placeholder"] ? "" : text(map(i.spec["facts"])["not_after"])), {
        cell: (i) => <Age at={(!map(i.spec["facts"])["placeholder"] && text(map(i.spec["facts"])["not_after"])) || undefined} />,
      }),
      column("from", "From", "minmax(150px, 1.2fr)", (i) => text(i.spec["issuer"]), {
        cell: (i) => {
          const issuer = text(i.spec["issuer"]);
          if (!issuer) return <span className="muted">{map(i.spec["facts"])["has_private_key"] ? "given, with its key" : "given, to trust"}</span>;
          const [tone, word] = issuanceWords(i.status?.issuance);
          return <Pill tone={tone} title={i.status?.issuance?.reason || `from ${issuer}`}>{word}</Pill>;
        },
        wide: true,
      }),
    ],
  },
  "auth-policies": {
    icon: IconLock,
    good: "A policy says who may pass: with signed tokens (JWT), opaque tokens, or both. Routes and gateways name one.",
    group: "Edge",
    usual: () => ["jwt", "tokens"],
    columns: [
      column("takes", "Takes", "minmax(160px, 1.4fr)", (i) =>
        [i.spec["jwt"] ? "signed tokens (JWT)" : "", list(i.spec["tokens"]).length ? `${list(i.spec["tokens"]).length} opaque tokens` : ""].filter(Boolean).join(", "),
      ),
      column("issuers", "Issuers", "minmax(160px, 1.4fr)", (i) => some(list(map(i.spec["jwt"])["issuers"]).map(text))),
      column("exempt", "Without", "minmax(140px, 1fr)", (i) => some(list(i.spec["exempt_paths"]).map((p) => text(map(p)["path"]))), { wide: true }),
    ],
  },
  "rate-limit-policies": {
    icon: IconGauge,
    good: "A policy limits each client: its requests in Envoy, and its packets in the kernel of each node.",
    group: "Edge",
    usual: () => ["cidrs", "packets_per_second", "requests_per_second", "action"],
    columns: [
      column("cidrs", "Sources", "minmax(170px, 1.6fr)", (i) => some(list(i.spec["cidrs"]).map(text)) || "every source"),
      column("packets", "Packets/s", "minmax(100px, 0.8fr)", (i) => Number(i.spec["packets_per_second"] ?? 0)),
      column("requests", "Requests/s", "minmax(100px, 0.8fr)", (i) => Number(i.spec["requests_per_second"] ?? 0)),
      column("action", "Action", "minmax(90px, 0.7fr)", (i) => text(i.spec["action"]) || "drop", { wide: true }),
    ],
  },
  licenses: { icon: IconLicense, group: "Edge", good: "Features that need a license are named where they are set. All else works without one." },
  "certificate-issuers": {
    icon: IconBuildingBank,
    good: "An authority such as Let’s Encrypt. A certificate that names it is got by ACME, and renewed before it ends.",
    group: "Edge",
    usual: () => ["directory", "terms_agreed", "contacts", "http01"],
    start: { directory: "letsencrypt" },
    columns: [
      column("directory", "Authority", "minmax(200px, 2fr)", (i) => directories[text(i.spec["directory"])] ?? text(i.spec["directory"])),
      column("proof", "Proves names by", "minmax(140px, 1fr)", (i) => (i.spec["dns01"] ? "DNS" : "HTTP")),
      column("contacts", "Contacts", "minmax(140px, 1.2fr)", (i) => some(list(i.spec["contacts"]).map(text)), { wide: true }),
    ],
  },
  "locality-drains": {
    icon: IconMapPinOff,
    good: "A drain takes a cloud, a region or a zone out of service: the endpoints there get no new requests for as long as it is there.",
    group: "Traffic",
    usual: () => ["cloud", "region", "zone", "reason"],
    columns: [
      column("place", "Place", "minmax(180px, 1.6fr)", (i) => ["cloud", "region", "zone"].map((n) => text(i.spec[n])).filter(Boolean).join(" / ")),
      column("reason", "Why", "minmax(180px, 2fr)", (i) => text(i.spec["reason"])),
    ],
  },
};

export const fallback: About = { icon: IconKey, group: "Edge" };
export const aboutOf = (path: string): About => about[path] ?? fallback;
export const NodeIcon = IconCpu;

/** Everything that a person may look for in an object, in lower case. */
const words = new WeakMap<Item, string>();
export function haystack(i: Item): string {
  let w = words.get(i);
  if (w === undefined) {
    w = `${i.name} ${i.owner ?? ""} ${JSON.stringify(i.labels ?? {})} ${JSON.stringify(i.spec)}`.toLowerCase();
    words.set(i, w);
  }
  return w;
}
