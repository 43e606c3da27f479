import {
  IconCertificate,
  IconCpu,
  IconGauge,
  IconKey,
  IconLicense,
  IconLock,
  IconPlug,
  IconRoute,
  IconServer2,
  IconTopologyStar3,
  type Icon,
} from "@tabler/icons-react";
import type { Item, Json, Spec } from "~/api/client";
import { Age } from "~/ui/bits";
import type { Column } from "~/ui/table";

/** What the pages know of a kind beside its schema. One that is not here has pages all the same. */
type About = {
  icon: Icon;
  group: "Traffic" | "Edge";
  columns?: Column<Item>[];
  /** The settings that a form shows without being asked. */
  usual?: string[];
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
  cell: (i) => <span title={String(value(i))}>{value(i) || <span className="muted">–</span>}</span>,
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

export const about: Record<string, About> = {
  routes: {
    icon: IconRoute,
    group: "Traffic",
    usual: ["hosts", "path", "backends"],
    start: { hosts: [], path: { prefix: "/" }, backends: [{ service: "" }] },
    columns: [
      column("hosts", "Hosts", "minmax(180px, 2fr)", (i) => some(hostsOf(i)) || "*"),
      column("path", "Path", "minmax(110px, 1fr)", pathOf, { cell: (i) => <span className="mono" title={pathOf(i)}>{pathOf(i)}</span> }),
      column("target", "Goes to", "minmax(140px, 1.4fr)", targetOf),
      column("gateways", "Gateways", "minmax(110px, 1fr)", gatewaysOf, { wide: true }),
    ],
  },
  services: {
    icon: IconServer2,
    group: "Traffic",
    usual: ["endpoints", "protocol"],
    start: { endpoints: [{ host: "", port: 80 }] },
    columns: [
      column("endpoints", "Endpoints", "minmax(200px, 2fr)", (i) => endpointsOf(i).length, {
        cell: (i) => <span className="mono" title={endpointsOf(i).join(", ")}>{some(endpointsOf(i)) || "none"}</span>,
      }),
      column("protocol", "Protocol", "minmax(100px, 0.8fr)", (i) => text(i.spec["protocol"]) || "http"),
      column("balancing", "Balancing", "minmax(120px, 1fr)", (i) => text(map(i.spec["load_balancing"])["policy"]) || "round_robin", { wide: true }),
      column("checks", "Health checks", "minmax(110px, 0.8fr)", (i) => (i.spec["health_check"] ? "on" : "off"), { wide: true }),
    ],
  },
  "endpoint-sets": {
    icon: IconPlug,
    group: "Traffic",
    usual: ["service", "endpoints"],
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
    group: "Edge",
    usual: ["listeners"],
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
    group: "Edge",
    usual: ["chain", "private_key", "gateways"],
    start: { chain: "" },
    columns: [
      column("names", "Names", "minmax(200px, 2fr)", (i) => some(list(map(i.spec["facts"])["dns_names"]).map(text))),
      column("ends", "Ends", "minmax(130px, 1fr)", (i) => text(map(i.spec["facts"])["not_after"]), {
        cell: (i) => <Age at={text(map(i.spec["facts"])["not_after"]) || undefined} />,
      }),
      column("key", "Key", "minmax(90px, 0.6fr)", (i) => (map(i.spec["facts"])["has_private_key"] ? "stored" : "none"), { wide: true }),
    ],
  },
  "auth-policies": { icon: IconLock, group: "Edge", usual: ["jwt", "tokens"] },
  "rate-limit-policies": {
    icon: IconGauge,
    group: "Edge",
    usual: ["cidrs", "packets_per_second", "requests_per_second", "action"],
    columns: [
      column("cidrs", "Sources", "minmax(170px, 1.6fr)", (i) => some(list(i.spec["cidrs"]).map(text)) || "every source"),
      column("packets", "Packets/s", "minmax(100px, 0.8fr)", (i) => Number(i.spec["packets_per_second"] ?? 0)),
      column("requests", "Requests/s", "minmax(100px, 0.8fr)", (i) => Number(i.spec["requests_per_second"] ?? 0)),
      column("action", "Action", "minmax(90px, 0.7fr)", (i) => text(i.spec["action"]) || "drop", { wide: true }),
    ],
  },
  licenses: { icon: IconLicense, group: "Edge" },
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
