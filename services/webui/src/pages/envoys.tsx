import { Drawer, Group, Select, Stack, Table, Text, TextInput } from "@mantine/core";
import { IconSearch, IconServerBolt } from "@tabler/icons-react";
import { useQuery } from "@tanstack/react-query";
import { Link, useNavigate, useSearch } from "@tanstack/react-router";
import { useMemo, type ReactNode } from "react";
import { client, take, type Proxy } from "~/api/client";
import { useLive } from "~/api/live";
import { modelQuery } from "~/api/model";
import { statusQuery } from "~/shell";
import { Age, Empty, ErrorNote, Loading, Note, PageHead, Pill, plural, useTitle, type Tone } from "~/ui/bits";
import { DataTable, type Column } from "~/ui/table";

export type Standing = "SYNCED" | "COMING" | "STALE" | "REJECTED" | "AWAY";
const tones: Record<Standing, [Tone, string]> = { SYNCED: ["ok", "In step"], COMING: ["info", "Catching up"], STALE: ["warn", "Behind"], REJECTED: ["bad", "Refuses"], AWAY: ["idle", "Not connected"] };

/** How an Envoy is to what is stored. Each is as far as head a moment after a change; one that is not is behind when its server says so. */
export function standing(p: Proxy, head: number): Standing {
  if (!p.connected) return "AWAY";
  if (p.lagging_since) return "STALE";
  if (p.rejected?.length) return "REJECTED";
  return p.applied_revision < head ? "COMING" : "SYNCED";
}

async function everyProxy(): Promise<Proxy[]> {
  const all: Proxy[] = [];
  for (let cursor = ""; ; ) {
    const page = await take(client.GET("/v1/proxies", { params: { query: { limit: 1000, ...(cursor && { cursor }) } as never } }));
    all.push(...page.items);
    if (!page.next_cursor) return all;
    cursor = page.next_cursor;
  }
}

export function Envoys() {
  useTitle("Envoys");
  const navigate = useNavigate({ from: "/envoys" });
  const search = useSearch({ from: "/envoys" });
  const list = useQuery({ queryKey: ["proxies", "all"], queryFn: everyProxy });
  const live = useLive();
  // What is stored: the revision that all Envoys serve would be that of the one furthest behind.
  const head = Math.max(useQuery(statusQuery).data?.revision ?? 0, live.head);
  const set = (change: Partial<typeof search>) => void navigate({ search: (s) => ({ ...s, ...change }), replace: true });
  const rows = useMemo(
    () =>
      (list.data ?? []).filter(
        (p) => (!search.state || standing(p, head) === search.state) && (!search.q || `${p.id} ${p.gateway} ${p.xds} ${p.address ?? ""}`.toLowerCase().includes(search.q.toLowerCase())),
      ),
    [list.data, search.q, search.state, head],
  );
  const columns = useMemo<Column<Proxy>[]>(
    () => [
      { id: "id", head: "Envoy", width: "minmax(170px, 1.8fr)", value: (p) => p.id, cell: (p) => <Link to="/envoys" search={(s: object) => ({ ...s, id: p.id })} title={p.id}>{p.id}</Link> },
      { id: "gateway", head: "Gateway", width: "minmax(110px, 1fr)", value: (p) => p.gateway, cell: (p) => p.gateway },
      { id: "state", head: "State", width: "minmax(130px, 1fr)", value: (p) => standing(p, head), cell: (p) => { const [tone, word] = tones[standing(p, head)]; return <Pill tone={tone}>{word}</Pill>; } },
      { id: "applied", head: "Revision", width: "minmax(110px, .8fr)", value: (p) => p.applied_revision, cell: (p) => p.applied_revision.toLocaleString("en") },
      { id: "address", head: "Address", width: "minmax(130px, 1fr)", value: (p) => p.address ?? "", cell: (p) => <span className="mono">{p.address || "–"}</span>, wide: true },
      { id: "version", head: "Version", width: "minmax(90px, .7fr)", value: (p) => p.version ?? "", cell: (p) => p.version || "–", wide: true },
      { id: "since", head: "Connected", width: "minmax(110px, .8fr)", value: (p) => p.connected_at ?? "", cell: (p) => <Age at={p.connected ? p.connected_at : p.last_seen_at} />, wide: true },
    ],
    [head],
  );
  const chosen = list.data?.find((p) => p.id === search.id);
  return (
    <>
      <PageHead title="Envoys">The proxies that are connected, or were within the last hour, and what each of them has.</PageHead>
      <Group gap="xs" mb="sm">
        <TextInput aria-label="Filter Envoys" placeholder="Filter by name, gateway, address" leftSection={<IconSearch size={16} />} value={search.q ?? ""} onChange={(e) => set({ q: e.currentTarget.value || undefined })} style={{ flex: "1 1 220px", maxWidth: 420 }} />
        <Select aria-label="State" placeholder="Any state" clearable w={160} data={Object.entries(tones).map(([value, [, label]]) => ({ value, label }))} value={search.state ?? null} onChange={(v) => set({ state: v ?? undefined })} />
        <Text size="sm" className="muted" ml="auto">{list.data && plural(rows.length, "Envoy")}</Text>
      </Group>
      {list.isError && <ErrorNote error={list.error} retry={() => void list.refetch()} />}
      {list.isPending && <div className="card"><Loading /></div>}
      {list.data && (
        <DataTable label="Envoys" rows={rows} columns={columns} rowKey={(p) => `${p.id}@${p.xds}`} sort={search.sort} onSort={(sort) => set({ sort })} around={250}
          empty={<Empty icon={<IconServerBolt size={38} stroke={1.3} />} title={list.data.length ? "Nothing fits the filter" : "No Envoy is connected"}>An Envoy connects to the xDS server with a key of its gateway; the agent on each node starts one.</Empty>} />
      )}
      <Drawer opened={!!search.id} onClose={() => set({ id: undefined })} position="right" size="lg" title={<Text fw={650} component="span" style={{ overflowWrap: "anywhere" }}>{search.id}</Text>} closeButtonProps={{ "aria-label": "Close" }}>
        {chosen ? <Detail proxy={chosen} head={head} /> : list.data && <Note tone="info" title="It is not connected any more">No such Envoy has been seen within the last hour.</Note>}
      </Drawer>
    </>
  );
}

function Detail({ proxy: p, head }: { proxy: Proxy; head: number }) {
  const model = useQuery(modelQuery).data;
  const s = standing(p, head);
  const rows: [string, ReactNode][] = [
    ["State", <Pill key="s" tone={tones[s][0]}>{tones[s][1]}</Pill>],
    ["Gateway", <Link key="g" className="link" to="/$kind/$name" params={{ kind: "gateways", name: p.gateway }}>{p.gateway}</Link>],
    ["Has revision", p.applied_revision.toLocaleString("en")],
    ["xDS server", p.xds],
    ["Address", p.address || "–"],
    ["Envoy's version", p.version || "–"],
    [p.connected ? "Connected" : "Last seen", <Age key="c" at={p.connected ? p.connected_at : p.last_seen_at} />],
    ["Drains within", p.drain_time_seconds ? `${p.drain_time_seconds} s` : "–"],
  ];
  return (
    <Stack>
      {p.surplus && <Note tone="warn" title="Over the limit">The gateway's license has no seat for it: routes that set something of their own are left out.</Note>}
      {p.lagging_since && <Note tone="warn" title="Behind">It has waited for <span className="mono">{p.lacks}</span> since <Age at={p.lagging_since} />.</Note>}
      {p.rejected?.map((r) => {
        const path = model?.byName.get(r.kind)?.path;
        return (
          <Note key={r.kind + r.name + (r.resource ?? "")} tone="bad" title={<>Refuses {path ? <Link className="link" to="/$kind/$name" params={{ kind: path, name: r.name }}>{r.kind} {r.name}</Link> : `${r.kind} ${r.name}`}</>}>
            <Text size="sm" className="mono" style={{ whiteSpace: "pre-wrap" }}>{r.reason}</Text>
            <Text size="sm" className="muted" mt={4}>So says an Envoy of the gateway {p.gateway}, whose Envoys are all given the same.</Text>
          </Note>
        );
      })}
      <Table variant="vertical" withTableBorder>
        <Table.Tbody>
          {rows.map(([k, v]) => (
            <Table.Tr key={k}>
              <Table.Th w={160} scope="row">{k}</Table.Th>
              <Table.Td style={{ overflowWrap: "anywhere" }}>{v}</Table.Td>
            </Table.Tr>
          ))}
        </Table.Tbody>
      </Table>
    </Stack>
  );
}
