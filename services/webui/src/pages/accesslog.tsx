import { Button, Group, Modal, Select, Stack, Text, TextInput } from "@mantine/core";
import { useDebouncedCallback } from "@mantine/hooks";
import { IconPlayerPause, IconPlayerPlay, IconRoute2, IconTrash, IconWaveSawTool } from "@tabler/icons-react";
import { useQuery, useQueryClient } from "@tanstack/react-query";
import { Link, useNavigate, useSearch } from "@tanstack/react-router";
import { useMemo, useState, type ReactNode } from "react";
import { keep, useAccessLog, type LogRow, type LogState } from "~/api/accesslog";
import { Empty, ErrorNote, Loading, Note, PageHead, Pill, plural, useTitle, type Tone } from "~/ui/bits";
import { DataTable, type Column } from "~/ui/table";
import { wholeList } from "./list";

const tones: Record<string, Tone> = { 1: "info", 2: "ok", 3: "info", 4: "warn", 5: "bad" };
const toneOf = (status: number): Tone => tones[String(status)[0] ?? ""] ?? "idle";
const Status = ({ of: { status } }: { of: LogRow }) => <Pill tone={toneOf(status)}>{status || "none"}</Pill>;

const clock = new Intl.DateTimeFormat("en", { hour: "2-digit", minute: "2-digit", second: "2-digit", fractionalSecondDigits: 3, hourCycle: "h23" });
const time = (at: string | undefined) => (at ? clock.format(new Date(at)) : "–");
const none = <span className="muted">–</span>;

const statuses = [
  { value: "2xx", label: "2xx" },
  { value: "3xx", label: "3xx" },
  { value: "4xx", label: "4xx" },
  { value: "5xx", label: "5xx" },
  { value: "4xx,5xx", label: "4xx and 5xx" },
];
const methods = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
/** What may be chosen, and what the page's address asks for beside it. */
const among = <T extends string | { value: string }>(all: T[], now: string | undefined) =>
  now && !all.some((x) => (typeof x === "string" ? x : x.value) === now) ? [...all, now] : all;

/** The requests that Envoys answer, as they do. */
export function AccessLog() {
  useTitle("Access log");
  const search = useSearch({ from: "/access-log" });
  const navigate = useNavigate({ from: "/access-log" });
  const cache = useQueryClient();
  const gateways = useQuery(wholeList(cache, "gateways")).data?.items.map((g) => g.name) ?? [];
  const [paused, setPaused] = useState(false);
  const [open, setOpen] = useState<LogRow>();
  const log = useAccessLog(search, paused);
  const set = (change: Partial<typeof search>) => void navigate({ search: (s) => ({ ...s, ...change }), replace: true });
  const later = useDebouncedCallback(set, 400);
  const [typed, setTyped] = useState({ host: search.host ?? "", path: search.path ?? "", route: search.route ?? "", proxy: search.proxy ?? "" });
  const text = (name: keyof typeof typed, label: string, placeholder: string, width: number) => (
    <TextInput
      aria-label={label}
      placeholder={placeholder}
      value={typed[name]}
      onChange={(e) => {
        const value = e.currentTarget.value;
        setTyped((t) => ({ ...t, [name]: value }));
        later({ [name]: (name === "path" && value && !value.startsWith("/") ? `/${value}` : value) || undefined });
      }}
      style={{ flex: `1 1 ${width}px`, maxWidth: 2 * width }}
    />
  );
  const columns = useMemo(
    (): Column<LogRow>[] => [
      { id: "time", head: "Time", width: "minmax(116px, .7fr)", phone: "line", cell: (e) => <span className="mono">{time(e.time)}</span> },
      { id: "status", head: "Status", width: "minmax(92px, .5fr)", phone: "side", cell: (e) => <Status of={e} /> },
      { id: "method", head: "Method", width: "minmax(84px, .5fr)", cell: (e) => e.method ?? none },
      {
        id: "request", head: "Request", width: "minmax(220px, 3fr)", phone: "title",
        cell: (e) => (
          <button type="button" className="as-link" onClick={() => setOpen(e)} title={`${e.host ?? ""}${e.path ?? ""}`}>
            {e.host}{e.path}
          </button>
        ),
      },
      { id: "route", head: "Route", width: "minmax(120px, 1.2fr)", phone: "line", cell: (e) => (e.route ? <Link to="/$kind/$name" params={{ kind: "routes", name: e.route }}>{e.route}</Link> : <span className="muted">no route</span>) },
      { id: "ms", head: "Took", width: "minmax(76px, .5fr)", cell: (e) => <span className="nowrap">{(e.duration_ms ?? 0).toLocaleString("en")} ms</span> },
      { id: "client", head: "Client", width: "minmax(150px, 1fr)", wide: true, cell: (e) => <span className="mono" title={e.client}>{e.client ?? none}</span> },
      { id: "gateway", head: "Gateway", width: "minmax(100px, .8fr)", wide: true, cell: (e) => e.gateway ?? none },
    ],
    [],
  );
  return (
    <>
      <PageHead
        title="Access log"
        actions={
          <>
            <Button variant="default" leftSection={<IconTrash size={16} />} onClick={log.clear} disabled={!log.rows.length && !log.waiting}>Clear</Button>
            <Button variant="default" leftSection={paused ? <IconPlayerPlay size={16} /> : <IconPlayerPause size={16} />} onClick={() => setPaused(!paused)}>
              {paused ? `Go on${log.waiting ? ` (${log.waiting.toLocaleString("en")} new)` : ""}` : "Pause"}
            </Button>
          </>
        }
      >
        Requests as Envoys answer them, the last ones first. Nothing is kept: what came before this page was opened is in the access log's sinks. Queries are left out.
      </PageHead>
      <Group gap="xs" mb="sm" role="search" aria-label="Which requests">
        {text("host", "Host", "Host, or *.example.com", 160)}
        {text("path", "Path", "Path begins with", 130)}
        {text("route", "Route", "Route", 110)}
        <Select aria-label="Status" placeholder="Any status" clearable w={140} data={among(statuses, search.status)} value={search.status ?? null} onChange={(v) => set({ status: v ?? undefined })} />
        <Select aria-label="Method" placeholder="Any method" clearable w={136} data={among(methods, search.method)} value={search.method ?? null} onChange={(v) => set({ method: v ?? undefined })} />
        <Select aria-label="Gateway" placeholder="Any gateway" clearable searchable w={150} data={among(gateways, search.gateway)} value={search.gateway ?? null} onChange={(v) => set({ gateway: v ?? undefined })} />
        {text("proxy", "Envoy", "Envoy", 110)}
      </Group>
      {log.error !== undefined ? (
        <ErrorNote error={log.error} />
      ) : (
        <>
          <Telling connection={log.connection} state={log.state} paused={paused} shown={log.rows.length} />
          {log.connection === "connecting" || (log.connection === "open" && !log.state && !log.rows.length) ? (
            <div className="card"><Loading /></div>
          ) : (
            <DataTable label="Requests" rows={log.rows} columns={columns} rowKey={(e) => String(e.n)} around={340} empty={<Nothing state={log.state} paused={paused} />} />
          )}
        </>
      )}
      {open && <Details entry={open} onClose={() => setOpen(undefined)} />}
    </>
  );
}

/** Who tells, and of how much. */
function Telling({ connection, state, paused, shown }: { connection: string; state: LogState | undefined; paused: boolean; shown: number }) {
  if (connection === "lost")
    return (
      <div style={{ marginBottom: 12 }}>
        <Note tone="warn" title="The connection to the API is lost">
          <Text size="sm">The page comes back by itself. Requests that are answered meanwhile are not shown.</Text>
        </Note>
      </div>
    );
  if (!state) return null;
  return (
    <Stack gap="xs" mb="sm">
      <Group gap="xs" role="status">
        {paused ? <Pill tone="idle">Paused</Pill> : <Pill tone={state.proxies ? "ok" : "idle"}>{state.proxies ? `Live from ${plural(state.proxies, "Envoy")}` : "No Envoy tells"}</Pill>}
        {state.share < 1 && <Pill tone="info" title="There are more requests than can be followed: Envoys tell of a share of them, drawn at random, so that they are not slowed down. A filter by status makes it larger.">1 of {Math.round(1 / state.share).toLocaleString("en")} shown</Pill>}
        {state.dropped > 0 && <Pill tone="warn" title="This browser did not read them fast enough.">{state.dropped.toLocaleString("en")} lost</Pill>}
        {shown === keep && <Text size="sm" className="muted">The last {keep.toLocaleString("en")} are kept</Text>}
      </Group>
      {state.reason ? (
        <Note tone="warn"><Text size="sm">{state.reason}</Text></Note>
      ) : state.silent > 0 ? (
        <Note tone="info"><Text size="sm">{plural(state.silent, "Envoy")} told nothing: no agent runs {state.silent === 1 ? "it" : "them"}, or one of an older version, or one that may not speak to NATS.</Text></Note>
      ) : null}
    </Stack>
  );
}

function Nothing({ state, paused }: { state: LogState | undefined; paused: boolean }) {
  const icon = <IconWaveSawTool size={38} stroke={1.3} />;
  if (paused) return <Empty icon={icon} title="Paused">Go on to see what comes.</Empty>;
  if (!state) return <Empty icon={icon} title="Nothing is known now" />;
  if (state.proxies + state.silent === 0) return <Empty icon={icon} title="No Envoy is connected that this could be asked of">When one is, its requests are here.</Empty>;
  if (state.proxies === 0) return <Empty icon={icon} title="No Envoy tells">Envoys tell by the agent that runs them.</Empty>;
  return <Empty icon={icon} title="No such request yet">Requests are here as soon as they are answered.</Empty>;
}

/** An address without its port. */
const addressOf = (client: string | undefined) => client?.replace(/:\d+$/, "").replace(/^\[|\]$/g, "");

function Details({ entry: e, onClose }: { entry: LogRow; onClose: () => void }) {
  const to = (kind: string, name: string) => <Link className="link" to="/$kind/$name" params={{ kind, name }}>{name}</Link>;
  const mono = (s: ReactNode) => <span className="mono">{s}</span>;
  const facts: [string, ReactNode][] = [
    ["Time", e.time && new Date(e.time).toLocaleString()],
    ["Route", e.route ? to("routes", e.route) : "none fitted"],
    ["Service", e.service && to("services", e.service)],
    ["Endpoint", e.upstream && mono(e.upstream)],
    ["Gateway", e.gateway && <>{to("gateways", e.gateway)}{e.listener && `, listener ${e.listener}`}</>],
    ["Envoy", e.proxy && <Link className="link" to="/envoys" search={{ id: e.proxy }}>{e.proxy}</Link>],
    ["Took", `${(e.duration_ms ?? 0).toLocaleString("en")} ms${e.upstream_ms ? `, of which ${e.upstream_ms.toLocaleString("en")} ms until the endpoint's answer began` : ""}`],
    ["Bodies", `${(e.bytes_received ?? 0).toLocaleString("en")} bytes in, ${(e.bytes_sent ?? 0).toLocaleString("en")} bytes out`],
    ["Client", e.client && mono(e.client)],
    ["User agent", e.user_agent],
    ["Protocol", [e.scheme, e.protocol, e.server_name && `asked for ${e.server_name}`].filter(Boolean).join(", ")],
    ["Envoy says", [e.flags, e.details].filter(Boolean).join(" ")],
    ["Request id", e.request_id && mono(e.request_id)],
    ["Stands for", e.share < 1 && `${Math.round(1 / e.share).toLocaleString("en")} requests`],
  ];
  return (
    <Modal opened onClose={onClose} size="lg" title={<Text fw={650} component="span" style={{ overflowWrap: "anywhere" }}>{e.method} {e.host}{e.path}</Text>} closeButtonProps={{ "aria-label": "Close" }}>
      <Stack gap="md">
        <div><Status of={e} /></div>
        <dl className="facts">
          {facts.filter(([, v]) => v).map(([k, v]) => (
            <div key={k}>
              <dt>{k}</dt>
              <dd>{v}</dd>
            </div>
          ))}
        </dl>
        {e.host && (
          <Group justify="flex-end">
            <Button
              component={Link}
              to="/try"
              search={{ gateway: e.gateway, listener: e.listener, method: e.method, host: e.host, path: e.path, source: addressOf(e.client) } as never}
              variant="default"
              leftSection={<IconRoute2 size={16} />}
            >
              Try a request like it
            </Button>
          </Group>
        )}
      </Stack>
    </Modal>
  );
}
