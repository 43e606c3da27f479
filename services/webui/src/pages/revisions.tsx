import { Button, Checkbox, Group, Modal, Select, Stack, Text, TextInput } from "@mantine/core";
import { IconArrowBackUp, IconGitCompare, IconHistory } from "@tabler/icons-react";
import { useInfiniteQuery, useQuery, useQueryClient } from "@tanstack/react-query";
import { Link, useNavigate, useParams, useSearch } from "@tanstack/react-router";
import { useState } from "react";
import { ApiError, client, take, type Revision } from "~/api/client";
import { mayAs } from "~/api/model";
import { useSession } from "~/session";
import { statusQuery } from "~/shell";
import { Age, Empty, ErrorNote, Loading, Note, PageHead, plural, useTitle } from "~/ui/bits";
import { Changes } from "~/ui/diff";
import { DataTable, type Column } from "~/ui/table";
import { Warnings } from "./save";

export function Revisions() {
  useTitle("Revisions");
  const search = useSearch({ from: "/revisions" });
  const navigate = useNavigate({ from: "/revisions" });
  const set = (change: Partial<typeof search>) => void navigate({ search: (s) => ({ ...s, ...change }), replace: true });
  const list = useInfiniteQuery({
    queryKey: ["revisions", "all"],
    queryFn: ({ pageParam }) => take(client.GET("/v1/revisions", { params: { query: { limit: 200, ...(pageParam && { cursor: pageParam }) } as never } })),
    initialPageParam: "",
    getNextPageParam: (last) => last.next_cursor || undefined,
  });
  const all = list.data?.pages.flatMap((p) => p.items) ?? [];
  const actors = [...new Set(all.map((r) => r.actor))].sort();
  const rows = all.filter((r) => (!search.actor || r.actor === search.actor) && (!search.object || `${r.message ?? ""} ${r.revision}`.toLowerCase().includes(search.object.toLowerCase())));
  const chosen = [search.a, search.b].filter((x) => x !== undefined);
  const toggle = (n: string) => {
    if (chosen.includes(n)) {
      const [a, b] = chosen.filter((x) => x !== n);
      set({ a, b });
    } else {
      const [a, b] = [...chosen, n].slice(-2);
      set({ a, b });
    }
  };
  const columns: Column<Revision>[] = [
    { id: "pick", head: "Compare", width: "100px", cell: (r) => <Checkbox size="xs" aria-label={`Choose revision ${r.revision} to compare`} checked={chosen.includes(String(r.revision))} onChange={() => toggle(String(r.revision))} /> },
    { id: "revision", head: "Revision", width: "minmax(90px, .6fr)", phone: "title", cell: (r) => <Link to="/revisions/$revision" params={{ revision: String(r.revision) }}>{r.revision}</Link> },
    { id: "at", head: "When", width: "minmax(110px, .8fr)", phone: "side", cell: (r) => <Age at={r.at} /> },
    { id: "actor", head: "Who", width: "minmax(120px, 1fr)", phone: "line", cell: (r) => <span title={r.actor}>{r.actor}</span> },
    { id: "message", head: "Why", width: "minmax(180px, 2.4fr)", phone: "line", cell: (r) => <span title={r.message}>{r.message || <span className="muted">–</span>}</span> },
    { id: "count", head: "Objects", width: "minmax(80px, .5fr)", cell: (r) => r.change_count.toLocaleString("en"), wide: true },
  ];
  const both = search.a !== undefined && search.b !== undefined ? ([search.a, search.b].map(Number).sort((x, y) => x - y) as [number, number]) : undefined;
  return (
    <>
      <PageHead title="Revisions">Every accepted write is one revision. Choose two to see what differs, or open one to see what it changed and to go back to it.</PageHead>
      <Group gap="xs" mb="sm">
        <TextInput aria-label="Filter revisions" placeholder="Filter by why" value={search.object ?? ""} onChange={(e) => set({ object: e.currentTarget.value || undefined })} style={{ flex: "1 1 180px", maxWidth: 360 }} />
        <Select aria-label="Who" placeholder="Anybody" clearable searchable w={190} data={actors} value={search.actor ?? null} onChange={(v) => set({ actor: v ?? undefined })} />
        <Text size="sm" className="muted" ml="auto">{chosen.length === 1 ? "Choose one more to compare" : plural(rows.length, "revision")}{list.hasNextPage ? ", older ones are not read yet" : ""}</Text>
      </Group>
      {list.isError && <ErrorNote error={list.error} retry={() => void list.refetch()} />}
      {list.isPending && <div className="card"><Loading /></div>}
      {list.data && <DataTable label="Revisions" rows={rows} columns={columns} rowKey={(r) => String(r.revision)} around={310} empty={<Empty icon={<IconHistory size={38} stroke={1.3} />} title="No revision is like this" />} />}
      {list.hasNextPage && (
        <Group justify="center" mt="md">
          <Button variant="default" onClick={() => void list.fetchNextPage()} loading={list.isFetchingNextPage}>Older revisions</Button>
        </Group>
      )}
      {both && <Compare from={both[0]} to={both[1]} onClose={() => set({ a: undefined, b: undefined })} />}
    </>
  );
}

function Compare({ from, to, onClose }: { from: number; to: number; onClose: () => void }) {
  const diff = useQuery({ queryKey: ["diff", from, to], queryFn: () => take(client.GET("/v1/revisions/{revision}/diff", { params: { path: { revision: to as never }, query: { against: from as never } } })), retry: false });
  return (
    <Modal opened onClose={onClose} size="80rem" title={<Group gap="xs" component="span"><IconGitCompare size={18} aria-hidden /><Text fw={650} component="span">From revision {from} to {to}</Text></Group>} closeButtonProps={{ "aria-label": "Close" }}>
      {diff.isError && <ErrorNote error={diff.error} />}
      {diff.isPending && <Loading />}
      {diff.data && <Changes changes={diff.data.changes} />}
    </Modal>
  );
}

export function RevisionPage() {
  const { revision } = useParams({ from: "/revisions/$revision" });
  useTitle(`Revision ${revision}`);
  const n = Number(revision);
  const got = useQuery({ queryKey: ["revision", n], queryFn: () => take(client.GET("/v1/revisions/{revision}", { params: { path: { revision: revision as never } } })), retry: false });
  const head = useQuery(statusQuery).data?.revision;
  const may = mayAs(useSession()?.role, "editor");
  const [back, setBack] = useState(false);
  if (got.isError) return <ErrorNote error={got.error} />;
  if (!got.data) return <div className="card"><Loading rows={8} /></div>;
  const r = got.data;
  return (
    <>
      <PageHead
        title={`Revision ${r.revision}`}
        actions={
          <>
            {head !== undefined && head > n && <Button component={Link} to={`/revisions?a=${n}&b=${head}` as "/"} variant="default" leftSection={<IconGitCompare size={16} />}>Compare with now</Button>}
            {head !== undefined && head > n && <Button onClick={() => setBack(true)} disabled={!may} leftSection={<IconArrowBackUp size={16} />}>Go back to it…</Button>}
          </>
        }
      >
        <Group gap="sm">
          <Link className="link" to="/revisions">Revisions</Link>
          <span>by {r.actor}</span>
          <Age at={r.at} />
          {head === n && <span>the last one</span>}
        </Group>
        {r.message && <Text mt={6} c="var(--mantine-color-text)">{r.message}</Text>}
      </PageHead>
      <div className="card" style={{ padding: 20 }}>
        <Changes changes={r.changes ?? []} />
      </div>
      {back && <Rollback to={n} onClose={() => setBack(false)} />}
    </>
  );
}

/** Shows what going back would change, and does it as a new revision. */
function Rollback({ to, onClose }: { to: number; onClose: () => void }) {
  const cache = useQueryClient();
  const navigate = useNavigate();
  const [revive, setRevive] = useState(false);
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<unknown>();
  const ask = (dry: boolean) =>
    take(client.POST("/v1/revisions/{revision}/rollback", { params: { path: { revision: to as never }, query: { ...(dry ? { dry_run: "true" } : { wait: "live", timeout: "10s" }), ...(revive && { revive_credentials: "true" }) } as never } }));
  const preview = useQuery({ queryKey: ["preview-rollback", to], queryFn: () => ask(true), retry: false, staleTime: 0, gcTime: 0 });
  const revives = preview.data?.warnings?.some((w) => w.rule === "rollback.revives") ?? false;
  const go = async () => {
    setBusy(true);
    setError(undefined);
    try {
      const done = await ask(false);
      void cache.invalidateQueries();
      void navigate({ to: "/revisions/$revision", params: { revision: String(done.revision) } });
      onClose();
    } catch (e) {
      setError(e);
      setBusy(false);
    }
  };
  return (
    <Modal opened onClose={onClose} size="80rem" title={<Text fw={650} component="span">Go back to revision {to}</Text>} closeButtonProps={{ "aria-label": "Close" }}>
      <Stack>
        <Text size="sm">The configuration becomes what it was then, as a new revision: nothing of the history is lost, and this can be undone the same way.</Text>
        {preview.isPending && <Loading />}
        {preview.isError && <ErrorNote error={preview.error} />}
        {preview.data && (
          <>
            <Warnings warnings={preview.data.warnings} />
            <Changes changes={preview.data.changes} />
          </>
        )}
        {revives && <Checkbox checked={revive} onChange={(e) => setRevive(e.currentTarget.checked)} label="Bring back the credentials that were taken away since" />}
        {error !== undefined && (error instanceof ApiError && error.status === 409 && revives && !revive ? <Note tone="warn" title="Say that the credentials are meant to come back" /> : <ErrorNote error={error} />)}
        <Group justify="flex-end">
          <Button variant="default" onClick={onClose} data-autofocus>Stay</Button>
          <Button onClick={() => void go()} loading={busy} disabled={!preview.data || preview.data.changes.length === 0 || (revives && !revive)}>Go back</Button>
        </Group>
      </Stack>
    </Modal>
  );
}
