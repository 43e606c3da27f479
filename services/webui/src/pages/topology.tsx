import "@xyflow/react/dist/style.css";
import { Autocomplete, Button, Group, Loader, Text, useComputedColorScheme } from "@mantine/core";
import { useDebouncedValue } from "@mantine/hooks";
import { IconGitBranch } from "@tabler/icons-react";
import { useQuery, useQueryClient } from "@tanstack/react-query";
import { Link, useNavigate, useSearch } from "@tanstack/react-router";
import { Background, Controls, Handle, Position, ReactFlow, type Edge, type Node, type NodeProps } from "@xyflow/react";
import ELK from "elkjs/lib/elk-api";
import worker from "elkjs/lib/elk-worker.min.js?url";
import { useEffect, useMemo, useState } from "react";
import type { Item, Json, Spec } from "~/api/client";
import { stateOf, useLive } from "~/api/live";
import { endpointsOf, hostsOf, pathOf } from "~/kinds";
import { Empty, ErrorNote, PageHead, plural, useTitle } from "~/ui/bits";
import { wholeList } from "./list";

type Box = { kind: "host" | "route" | "service" | "endpoint"; title: string; text?: string; to?: { kind: string; name: string }; tone?: string; focus?: string };
type BoxNode = Node<Box>;
type Graph = { nodes: Map<string, Box>; edges: Map<string, { from: string; to: string; label?: string }> };

/** More routes than this are shown by their hosts, each of which can be opened. */
const many = 120;
/** Of a service with more endpoints, how many there are is shown. */
const shownEndpoints = 6;
const size = { width: 220, height: 54 };

const backendsOf = (r: Item): { service: string; weight: number | undefined }[] =>
  (Array.isArray(r.spec["backends"]) ? r.spec["backends"] : []).map((b: Json) => ({ service: String((b as Spec)["service"] ?? ""), weight: (b as Spec)["weight"] as number | undefined }));

/** Hosts, their routes, the services that those lead to, and their endpoints. */
function graphOf(routes: Item[], services: Map<string, Item>, whole: boolean, tone: (i: Item) => string): Graph {
  const g: Graph = { nodes: new Map(), edges: new Map() };
  const edge = (from: string, to: string, label?: string) => g.edges.set(`${from}→${to}`, { from, to, ...(label && { label }) });
  const byHost = new Map<string, number>();
  for (const r of routes) for (const h of hostsOf(r).length ? hostsOf(r) : ["*"]) byHost.set(h, (byHost.get(h) ?? 0) + 1);
  for (const r of routes) {
    const hosts = hostsOf(r).length ? hostsOf(r) : ["*"];
    for (const h of hosts) {
      g.nodes.set(`h ${h}`, { kind: "host", title: h === "*" ? "every other host" : h, text: plural(byHost.get(h) ?? 0, "route"), ...(!whole && { focus: h }) });
      if (whole) edge(`h ${h}`, `r ${r.name}`);
    }
    if (whole) g.nodes.set(`r ${r.name}`, { kind: "route", title: r.name ?? "", text: pathOf(r), to: { kind: "routes", name: r.name ?? "" }, tone: tone(r) });
    const backends = backendsOf(r);
    const total = backends.reduce((n, b) => n + (b.weight ?? 1), 0);
    for (const b of backends) {
      const s = services.get(b.service);
      const endpoints = s ? endpointsOf(s) : [];
      g.nodes.set(`s ${b.service}`, { kind: "service", title: b.service, text: plural(endpoints.length, "endpoint"), to: { kind: "services", name: b.service }, tone: s ? tone(s) : "bad" });
      const share = backends.length > 1 ? `${Math.round((100 * (b.weight ?? 1)) / Math.max(1, total))} %` : undefined;
      if (whole) edge(`r ${r.name}`, `s ${b.service}`, share);
      else for (const h of hosts) edge(`h ${h}`, `s ${b.service}`);
      if (whole && endpoints.length <= shownEndpoints)
        for (const e of endpoints) {
          g.nodes.set(`e ${e}`, { kind: "endpoint", title: e });
          edge(`s ${b.service}`, `e ${e}`);
        }
    }
    if (whole && backends.length === 0) {
      const what = r.spec["redirect"] ? "redirects" : "answers itself";
      g.nodes.set(`x ${r.name}`, { kind: "endpoint", title: what });
      edge(`r ${r.name}`, `x ${r.name}`);
    }
  }
  return g;
}

const elk = new ELK({ workerUrl: worker });

/** Places the boxes, in a worker: the page goes on meanwhile. */
function useLayout(g: Graph) {
  const [placed, setPlaced] = useState<{ of: Graph; nodes: BoxNode[]; edges: Edge[] }>();
  useEffect(() => {
    let current = true;
    void elk
      .layout({
        id: "root",
        layoutOptions: { "elk.algorithm": "layered", "elk.direction": "RIGHT", "elk.layered.spacing.nodeNodeBetweenLayers": "90", "elk.spacing.nodeNode": "16", "elk.layered.nodePlacement.strategy": "BRANDES_KOEPF", "elk.spacing.componentComponent": "16" },
        children: [...g.nodes.keys()].map((id) => ({ id, ...size })),
        edges: [...g.edges].map(([id, e]) => ({ id, sources: [e.from], targets: [e.to] })),
      })
      .then((r) => {
        if (!current) return;
        setPlaced({
          of: g,
          nodes: (r.children ?? []).map((c) => ({ id: c.id, type: "box", position: { x: c.x ?? 0, y: c.y ?? 0 }, data: g.nodes.get(c.id) as Box, ...size, draggable: false, connectable: false })),
          edges: [...g.edges].map(([id, e]) => ({ id, source: e.from, target: e.to, ...(e.label && { label: e.label }), focusable: false })),
        });
      });
    return () => {
      current = false;
    };
  }, [g]);
  return placed;
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
  const [q] = useDebouncedValue(typed, 250);
  useEffect(() => setTyped(search.q ?? ""), [search.q]);
  useEffect(() => {
    if (q === typed && q !== (search.q ?? "")) void navigate({ search: { q: q || undefined }, replace: true });
  }, [q, typed, search.q, navigate]);

  const all = routes.data?.items;
  const shown = useMemo(() => {
    const w = (search.q ?? "").toLowerCase();
    return (all ?? []).filter((r) => !w || r.name?.includes(w) || hostsOf(r).some((h) => h.includes(w)) || (w === "*" && hostsOf(r).length === 0) || backendsOf(r).some((b) => b.service.includes(w)));
  }, [all, search.q]);
  const whole = shown.length <= many;
  const rejected = status?.rejected;
  const graph = useMemo(() => {
    const by = new Map((services.data?.items ?? []).map((s) => [s.name ?? "", s]));
    return graphOf(shown, by, whole, (i) => (stateOf(i, status).state === "rejected" ? "bad" : "ok"));
    // Of the status only refusals are shown here; the layout is not made anew for the rest.
  }, [shown, services.data, whole, JSON.stringify(rejected)]);
  const placed = useLayout(graph);
  const hosts = useMemo(() => [...new Set((all ?? []).flatMap(hostsOf))].slice(0, 2000), [all]);

  return (
    <>
      <PageHead title="Topology">Hosts, the routes that serve them, the services those lead to, and their endpoints. Each leads to its page.</PageHead>
      <Group gap="xs" mb="sm">
        <Autocomplete aria-label="Host, route or service" placeholder="Host, route or service" value={typed} onChange={setTyped} data={hosts} limit={20} style={{ flex: "1 1 220px", maxWidth: 420 }} />
        {search.q && <Button variant="default" onClick={() => void navigate({ search: {} })}>Show all</Button>}
        <Text size="sm" className="muted" ml="auto" role="status">
          {all && plural(shown.length, "route")}
          {!whole && ", by host: open one to see its routes"}
        </Text>
      </Group>
      {(routes.isError || services.isError) && <ErrorNote error={routes.error ?? services.error} />}
      {all?.length === 0 ? (
        <div className="card"><Empty icon={<IconGitBranch size={38} stroke={1.3} />} title="No routes yet" action={<Button component={Link} to={"/routes/-/new" as "/"}>New route</Button>} /></div>
      ) : (
        <div className="card topo" role="region" aria-label="Graph of hosts, routes, services and endpoints">
          {placed ? (
            <ReactFlow key={search.q ?? ""} nodes={placed.nodes} edges={placed.edges} nodeTypes={nodeTypes} fitView fitViewOptions={{ maxZoom: 1, minZoom: 0.35 }} minZoom={0.05} maxZoom={1.5} onlyRenderVisibleElements nodesDraggable={false} nodesConnectable={false} nodesFocusable={false} edgesFocusable={false} colorMode={scheme} proOptions={{ hideAttribution: true }}>
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
