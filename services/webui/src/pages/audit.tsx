import { Button, Group, Select, Text, TextInput } from "@mantine/core";
import { useDebouncedCallback } from "@mantine/hooks";
import { IconClipboardList, IconDownload } from "@tabler/icons-react";
import { useInfiniteQuery, useQuery } from "@tanstack/react-query";
import { Link, useNavigate, useSearch } from "@tanstack/react-router";
import { useState } from "react";
import { client, take, type AuditEntry } from "~/api/client";
import { modelQuery } from "~/api/model";
import { Age, Empty, ErrorNote, Loading, PageHead, Pill, useTitle } from "~/ui/bits";
import { DataTable, type Column } from "~/ui/table";

const words: Record<string, ["ok" | "info" | "bad" | "warn", string]> = { create: ["ok", "New"], update: ["info", "Changed"], delete: ["bad", "Deleted"], refuse: ["warn", "Slowed down"] };

export function Audit() {
  useTitle("Audit");
  const search = useSearch({ from: "/audit" });
  const navigate = useNavigate({ from: "/audit" });
  const model = useQuery(modelQuery).data;
  const set = (change: Partial<typeof search>) => void navigate({ search: (s) => ({ ...s, ...change }), replace: true });
  const later = useDebouncedCallback(set, 300);
  const [typed, setTyped] = useState({ object: search.object ?? "", actor: search.actor ?? "" });
  const list = useInfiniteQuery({
    queryKey: ["audit", search],
    queryFn: ({ pageParam }) => take(client.GET("/v1/audit", { params: { query: { ...search, limit: 200, ...(pageParam && { cursor: pageParam }) } as never } })),
    initialPageParam: "",
    getNextPageParam: (last) => last.next_cursor || undefined,
  });
  const rows = list.data?.pages.flatMap((p) => p.items) ?? [];
  const columns: Column<AuditEntry>[] = [
    { id: "at", head: "When", width: "minmax(110px, .8fr)", phone: "line", cell: (e) => <Age at={e.at} /> },
    { id: "actor", head: "Who", width: "minmax(120px, 1fr)", phone: "line", cell: (e) => <span title={e.actor}>{e.actor}</span> },
    { id: "action", head: "What", width: "minmax(100px, .6fr)", phone: "side", cell: (e) => <Pill tone={words[e.action]?.[0] ?? "info"}>{words[e.action]?.[1] ?? e.action}</Pill> },
    {
      id: "object", head: "Object", width: "minmax(180px, 2fr)", phone: "title",
      cell: (e) => {
        const path = model?.byName.get(e.kind)?.path;
        return path ? <Link to="/$kind/$name" params={{ kind: path, name: e.name }} title={e.name}>{e.kind} {e.name}</Link> : `${e.kind} ${e.name}`;
      },
    },
    { id: "message", head: "Why", width: "minmax(140px, 1.6fr)", cell: (e) => <span title={e.message}>{e.message || <span className="muted">–</span>}</span>, wide: true },
    { id: "revision", head: "Revision", width: "minmax(90px, .6fr)", cell: (e) => (e.revision ? <Link to="/revisions/$revision" params={{ revision: String(e.revision) }}>{e.revision}</Link> : <span className="muted">–</span>), wide: true },
  ];
  return (
    <>
      <PageHead title="Audit" actions={<Button component="a" href="/v1/audit/export" download="audit.jsonl" variant="default" leftSection={<IconDownload size={16} />}>Export</Button>}>
        Every accepted change of an object, and what was done to tokens and users. Records are chained, so that a later edit of them shows.
      </PageHead>
      <Group gap="xs" mb="sm">
        <Select aria-label="Kind" placeholder="Any kind" clearable searchable w={190} data={[...(model?.kinds.map((k) => k.name) ?? []), "Token", "User"]} value={search.kind ?? null} onChange={(v) => set({ kind: v ?? undefined })} />
        <TextInput aria-label="Object" placeholder="Name of the object" value={typed.object} onChange={(e) => { const object = e.currentTarget.value; setTyped((t) => ({ ...t, object })); later({ object: object || undefined }); }} style={{ flex: "1 1 160px", maxWidth: 260 }} />
        <TextInput aria-label="Who" placeholder="Who" value={typed.actor} onChange={(e) => { const actor = e.currentTarget.value; setTyped((t) => ({ ...t, actor })); later({ actor: actor || undefined }); }} style={{ flex: "1 1 120px", maxWidth: 220 }} />
      </Group>
      {list.isError && <ErrorNote error={list.error} retry={() => void list.refetch()} />}
      {list.isPending && <div className="card"><Loading /></div>}
      {list.data && (
        <DataTable label="Audit" rows={rows} columns={columns} rowKey={(e) => `${e.at}${e.kind}/${e.name}${e.action}${e.revision}`} around={300}
          empty={<Empty icon={<IconClipboardList size={38} stroke={1.3} />} title="No record is like this">Names have to be whole here: the object's, and that of the token or user.</Empty>} />
      )}
      {list.hasNextPage && (
        <Group justify="center" mt="md">
          <Button variant="default" onClick={() => void list.fetchNextPage()} loading={list.isFetchingNextPage}>Older records</Button>
          <Text size="sm" className="muted">{rows.length} read</Text>
        </Group>
      )}
    </>
  );
}
