import "@xyflow/react/dist/style.css";
import { Autocomplete, Button, Group, Loader, Text, useComputedColorScheme } from "@mantine/core";
import { useDebouncedCallback } from "@mantine/hooks";
import { IconGitBranch, IconPlus, IconSearchOff } from "@tabler/icons-react";
import { useQuery, useQueryClient } from "@tanstack/react-query";
import { Link, useNavigate, useSearch } from "@tanstack/react-router";
import { Background, Controls, Handle, Position, ReactFlow, type Edge, type Node, type NodeProps, type Viewport } from "@xyflow/react";
import ELK from "elkjs/lib/elk-api";
import worker from "elkjs/lib/elk-worker.min.js?url";
import { useEffect, useMemo, useRef, useState } from "react";
import type { Item, Json, Spec } from "~/api/client";
import { stateOf, useLive } from "~/api/live";
import { trafficQuery, whyUnhealthy } from "~/api/traffic";
import { endpointsOf, hostsOf, pathOf } from "~/kinds";
import { Empty, ErrorNote, PageHead, plural, useTitle } from "~/ui/bits";
import { wholeList } from "./list";

type Box = { kind: "host" | "route" | "service" | "endpoint"; title: string; text?: string; to?: { kind: string; name: string }; tone?: string; focus?: string };
type BoxNode = Node<Box>;
type Graph = { nodes: Map<string, Box>; edges: Map<string, { from: string; to: string; label?: string }> };

/** More routes than this are shown by their hosts, those together that lead to the same services. */
const many = 120;
/** Of the hosts that lead elsewhere than all others, those with most routes are shown; there may be ten thousand. */
const mostGroups = 150;
/** Of a service with more endpoints, how many there are is shown. */
const shownEndpoints = 6;
const size = { width: 220, height: 54 };

const backendsOf = (r: Item): { service: string; weight: number | undefined }[] =>
  (Array.isArray(r.spec["backends"]) ? r.spec["backends"] : []).map((b: Json) => ({ service: String((b as Spec)["service"] ?? ""), weight: (b as Spec)["weight"] as number | undefined }));

const hostsOrAll = (r: Item) => (hostsOf(r).length ? hostsOf(r) : ["*"]);
const hostTitle = (h: string) => (h === "*" ? "every other host" : h);

class Drawing implements Graph {
  nodes: Graph["nodes"] = new Map();
  edges: Graph["edges"] = new Map();
  constructor(
    private services: Map<string, Item>,
    private tone: (i: Item) => string,
    /** Why endpoints fail, by service and by host and port. */
    private failing: Map<string, Map<string, string>>,
  ) {}
  edge(from: string, to: string, label?: string) {
    this.edges.set(`${from}→${to}`, { from, to, ...(label && { label }) });
  }
  service(name: string): string[] {
    const s = this.services.get(name);
    const endpoints = s ? endpointsOf(s) : [];
    const fails = this.failing.get(name)?.size ?? 0;
    this.nodes.set(`s ${name}`, {
      kind: "service",
      title: name,
      text: s ? `${plural(endpoints.length, "endpoint")}${fails ? `, ${fails.toLocaleString("en")} fail` : ""}` : "is missing",
      to: { kind: "services", name },
      tone: !s || this.tone(s) === "bad" ? "bad" : fails ? "warn" : "ok",
    });
    return endpoints;
  }

  /** Hosts, each of their routes, the services that those lead to, and their endpoints. */
  whole(routes: Item[]): this {
    const byHost = new Map<string, number>();
    for (const r of routes) for (const h of hostsOrAll(r)) byHost.set(h, (byHost.get(h) ?? 0) + 1);
    for (const r of routes) {
      for (const h of hostsOrAll(r)) {
        this.nodes.set(`h ${h}`, { kind: "host", title: hostTitle(h), text: plural(byHost.get(h) ?? 0, "route") });
        this.edge(`h ${h}`, `r ${r.name}`);
      }
      this.nodes.set(`r ${r.name}`, { kind: "route", title: r.name ?? "", text: pathOf(r), to: { kind: "routes", name: r.name ?? "" }, tone: this.tone(r) });
      const backends = backendsOf(r);
      const total = backends.reduce((n, b) => n + (b.weight ?? 1), 0);
      for (const b of backends) {
        const endpoints = this.service(b.service);
        this.edge(`r ${r.name}`, `s ${b.service}`, backends.length > 1 ? `${Math.round((100 * (b.weight ?? 1)) / Math.max(1, total))} %` : undefined);
        if (endpoints.length > shownEndpoints) continue;
        for (const e of endpoints) {
          const why = this.failing.get(b.service)?.get(e);
          this.nodes.set(`e ${e}`, { kind: "endpoint", title: e, ...(why && { text: why, tone: "bad" }) });
          this.edge(`s ${b.service}`, `e ${e}`);
        }
      }
      if (backends.length === 0) {
        this.nodes.set(`x ${r.name}`, { kind: "endpoint", title: r.spec["redirect"] ? "redirects" : "answers itself" });
        this.edge(`r ${r.name}`, `x ${r.name}`);
      }
    }
    return this;
  }

  /** Hosts and the services that they lead to. */
  byHost(routes: Item[]): this {
    const hosts = new Map<string, { routes: number; services: Set<string>; bad: boolean }>();
    for (const r of routes)
      for (const h of hostsOrAll(r)) {
        const x = hosts.get(h) ?? { routes: 0, services: new Set<string>(), bad: false };
        hosts.set(h, x);
        x.routes++;
        x.bad ||= this.tone(r) === "bad";
        for (const b of backendsOf(r)) x.services.add(b.service);
      }
    const groups = new Map<string, { hosts: string[]; routes: number; services: string[]; bad: boolean }>();
    for (const [h, x] of hosts) {
      const services = [...x.services].sort();
      const key = services.join(" ");
      const g = groups.get(key) ?? { hosts: [], routes: 0, services, bad: false };
      groups.set(key, g);
      g.hosts.push(h);
      g.routes += x.routes;
      g.bad ||= x.bad;
    }
    const most = [...groups].sort(([, a], [, b]) => b.routes - a.routes).slice(0, mostGroups);
    this.left = groups.size - most.length;
    for (const [key, g] of most) {
      const one = g.hosts.length === 1;
      const first = g.hosts[0] ?? "";
      const focus = one ? first : g.services[0];
      this.nodes.set(`g ${key}`, {
        kind: "host",
        title: one ? hostTitle(first) : plural(g.hosts.length, "host"),
        text: one ? plural(g.routes, "route") : `${hostTitle(first)} and ${(g.hosts.length - 1).toLocaleString("en")} more`,
        ...(focus && { focus }),
        ...(g.bad && { tone: "bad" }),
      });
      for (const s of g.services) {
        this.service(s);
        this.edge(`g ${key}`, `s ${s}`);
      }
    }
    return this;
  }
  /** How many groups of hosts are left out. */
  left = 0;
}

const elk = new ELK({ workerUrl: worker });

/** Places the boxes, in a worker: the page goes on meanwhile. */
function useLayout(g: Graph, of: string) {
  const [placed, setPlaced] = useState<{ of: string; nodes: BoxNode[]; edges: Edge[] }>();
  useEffect(() => {
    let current = true;
    void elk
      .layout({
        id: "root",
        layoutOptions: { "elk.algorithm": "layered", "elk.direction": "RIGHT", "elk.layered.spacing.nodeNodeBetweenLayers": "90", "elk.spacing.nodeNode": "16", "elk.layered.nodePlacement.strategy": "BRANDES_KOEPF", "elk.separateConnectedComponents": "false" },
        children: [...g.nodes.keys()].map((id) => ({ id, ...size })),
        edges: [...g.edges].map(([id, e]) => ({ id, sources: [e.from], targets: [e.to] })),
      })
      .then((r) => {
        if (!current) return;
        setPlaced({
          of,
          nodes: (r.children ?? []).map((c) => ({ id: c.id, type: "box", position: { x: c.x ?? 0, y: c.y ?? 0 }, data: g.nodes.get(c.id) as Box, ...size, draggable: false, connectable: false })),
          edges: [...g.edges].map(([id, e]) => ({ id, source: e.from, target: e.to, ...(e.label && { label: e.label }), focusable: false })),
        });
      });
    return () => {
      current = false;
    };
  }, [g, of]);
  return placed;
}

/** Where a drawing is looked at first: all of it where that can be read, and else its beginning. */
function begin(nodes: BoxNode[], box: HTMLElement | null): Viewport {
  const room = { width: box?.clientWidth ?? 800, height: box?.clientHeight ?? 600 };
  const margin = 24;
  const width = Math.max(0, ...nodes.map((n) => n.position.x)) + size.width + 2 * margin;
  const height = Math.max(0, ...nodes.map((n) => n.position.y)) + size.height + 2 * margin;
  const zoom = Math.min(1, Math.max(0.7, Math.min(room.width / width, room.height / height)));
  const from = (room: number, needed: number) => Math.max(0, (room - needed * zoom) / 2) + margin * zoom;
  return { x: from(room.width, width), y: from(room.height, height), zoom };
}

function BoxView({ data }: NodeProps<BoxNode>) {
  const navigate = useNavigate({ from: "/topology" });
  const inner = (
    <>
      <span className="topo-title">{data.title}</span>
      {data.text && <span className="topo-text">{data.text}</span>}
    </>
  );
  return (
    <div className="topo-box" data-kind={data.kind} data-tone={data.tone} title={data.title}>
      {data.kind !== "host" && <Handle type="target" position={Position.Left} isConnectable={false} />}
      {data.to ? (
        <Link to="/$kind/$name" params={{ kind: data.to.kind, name: data.to.name }} className="topo-link">{inner}</Link>
      ) : data.focus ? (
        <button type="button" className="topo-link" onClick={() => void navigate({ search: { q: data.focus } })}>{inner}</button>
      ) : (
        <div className="topo-link">{inner}</div>
      )}
      {data.kind !== "endpoint" && <Handle type="source" position={Position.Right} isConnectable={false} />}
    </div>
  );
}
const legend: [Box["kind"], string][] = [["host", "Host"], ["route", "Route"], ["service", "Service"], ["endpoint", "Endpoint"]];
const nodeTypes = { box: BoxView };

export function Topology() {
  useTitle("Topology");
  const cache = useQueryClient();
  const search = useSearch({ from: "/topology" });
  const navigate = useNavigate({ from: "/topology" });
  const scheme = useComputedColorScheme("light");
  const routes = useQuery(wholeList(cache, "routes"));
  const services = useQuery(wholeList(cache, "services"));
  const status = useLive().status;
  const [typed, setTyped] = useState(search.q ?? "");
  // What is typed becomes the address a moment later; what the address becomes otherwise, by a click, stands in the field.
  const written = useRef(search.q ?? "");
  const write = useDebouncedCallback((q: string) => {
    written.current = q;
    void navigate({ search: { q: q || undefined }, replace: true });
  }, 250);
  useEffect(() => {
    if ((search.q ?? "") === written.current) return;
    written.current = search.q ?? "";
    setTyped(search.q ?? "");
  }, [search.q]);

  const all = routes.data?.items;
  const shown = useMemo(() => {
    const w = (search.q ?? "").toLowerCase();
    return (all ?? []).filter((r) => !w || r.name?.includes(w) || hostsOf(r).some((h) => h.includes(w)) || (w === "*" && hostsOf(r).length === 0) || backendsOf(r).some((b) => b.service.includes(w)));
  }, [all, search.q]);
  const whole = shown.length <= many;
  const rejected = status?.rejected;
  const unhealthy = useQuery(trafficQuery).data?.unhealthy;
  const graph = useMemo(() => {
    const failing = new Map((unhealthy ?? []).map((u) => [u.service, new Map(u.endpoints.map((e) => [e.host ? `${e.host}${e.address.slice(e.address.lastIndexOf(":"))}` : e.address, whyUnhealthy(e.reason)]))]));
    const by = new Map((services.data?.items ?? []).map((s) => [s.name ?? "", s]));
    const drawing = new Drawing(by, (i) => (stateOf(i, status).state === "rejected" ? "bad" : "ok"), failing);
    return whole ? drawing.whole(shown) : drawing.byHost(shown);
    // Of the status only refusals are shown here; the layout is not made anew for the rest.
  }, [shown, services.data, whole, JSON.stringify(rejected), JSON.stringify(unhealthy)]);
  const placed = useLayout(graph, search.q ?? "");
  const box = useRef<HTMLDivElement>(null);
  const hosts = useMemo(() => [...new Set((all ?? []).flatMap(hostsOf))].slice(0, 2000), [all]);

  return (
    <>
      <PageHead title="Topology">Hosts, the routes that serve them, the services those lead to, and their endpoints. Each leads to its page.</PageHead>
      {!!all?.length && <Group gap="sm" mb="sm">
        <Autocomplete aria-label="Host, route or service" placeholder="Host, route or service" value={typed} onChange={(v) => { setTyped(v); write(v); }} data={hosts} limit={20} style={{ flex: "1 1 220px", maxWidth: 420 }} />
        {search.q && <Button variant="default" onClick={() => void navigate({ search: {} })}>Show all</Button>}
        <Group gap="md" className="muted" aria-hidden>
          {legend.map(([kind, word]) => <span key={kind} className="topo-key" data-kind={kind}>{word}</span>)}
        </Group>
        <Text size="sm" className="muted" ml="auto" role="status">
          {all && plural(shown.length, "route")}
          {!whole && ", by host: choose some to see their routes"}
          {graph.left > 0 && `; ${plural(graph.left, "more group")} of hosts not drawn: search for one`}
        </Text>
      </Group>}
      {(routes.isError || services.isError) && <ErrorNote error={routes.error ?? services.error} />}
      {all?.length === 0 ? (
        <div className="card"><Empty icon={<IconGitBranch size={38} stroke={1.3} />} title="No routes yet" action={<Button component={Link} to={"/routes/-/new" as "/"} leftSection={<IconPlus size={16} />}>New route</Button>}>With the first one you see here which way a request takes.</Empty></div>
      ) : all && shown.length === 0 ? (
        <div className="card"><Empty icon={<IconSearchOff size={34} stroke={1.4} />} title="Nothing fits the search" action={<Button variant="default" onClick={() => void navigate({ search: {} })}>Show all</Button>}>No host, route or service is like “{search.q}”.</Empty></div>
      ) : (
        <div className="card topo" ref={box} role="region" aria-label="Graph of hosts, routes, services and endpoints">
          {placed ? (
            <ReactFlow key={placed.of} nodes={placed.nodes} edges={placed.edges} nodeTypes={nodeTypes} onInit={(flow) => void flow.setViewport(begin(placed.nodes, box.current))} panOnScroll minZoom={0.05} maxZoom={1.5} onlyRenderVisibleElements nodesDraggable={false} nodesConnectable={false} nodesFocusable={false} edgesFocusable={false} colorMode={scheme} proOptions={{ hideAttribution: true }}>
              <Background gap={22} size={1} />
              <Controls showInteractive={false} />
            </ReactFlow>
          ) : (
            <Group justify="center" h="100%"><Loader aria-label="Placing the boxes" /></Group>
          )}
        </div>
      )}
    </>
  );
}
