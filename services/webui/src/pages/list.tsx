import { Button, CloseButton, Select, TextInput, Text } from "@mantine/core";
import { IconPlus, IconSearch, IconSearchOff } from "@tabler/icons-react";
import { queryOptions, useQuery, useQueryClient, type QueryClient } from "@tanstack/react-query";
import { Link, useNavigate, useParams, useSearch } from "@tanstack/react-router";
import { useDeferredValue, useEffect, useMemo, useState } from "react";
import { objects, type Item, type ItemList } from "~/api/client";
import { listKey, stateOf, useLive } from "~/api/live";
import { firstSentence, mayAs, modelQuery, type Kind } from "~/api/model";
import { aboutOf, haystack } from "~/kinds";
import { useSession } from "~/session";
import { NotFound } from "~/shell";
import { Age, Empty, ErrorNote, Loading, PageHead, plural, StateBadge, useTitle } from "~/ui/bits";
import { DataTable, type Column } from "~/ui/table";

/** Reads a kind whole. Pages that have come are shown while the others do. */
export const wholeList = (cache: QueryClient, kind: string) =>
  queryOptions({
    queryKey: listKey(kind),
    queryFn: async (): Promise<ItemList> => {
      const known = cache.getQueryData<ItemList>(listKey(kind));
      let all: Item[] = [];
      let cursor: string | undefined;
      for (;;) {
        const page = await objects.list(kind, { limit: 1000, ...(cursor && { cursor }) });
        all = all.concat(page.items);
        cursor = page.next_cursor || undefined;
        const got = { ...page, items: all };
        if (!cursor) return got;
        if (!known) cache.setQueryData(listKey(kind), got);
      }
    },
  });

export function KindList() {
  const { kind: path } = useParams({ from: "/$kind" });
  const model = useQuery(modelQuery);
  if (model.isPending) return <Loading />;
  if (model.isError) return <ErrorNote error={model.error} retry={() => void model.refetch()} />;
  const kind = model.data.byPath.get(path);
  return kind ? <List kind={kind} key={path} /> : <NotFound />;
}

function List({ kind }: { kind: Kind }) {
  useTitle(kind.plural);
  const cache = useQueryClient();
  const navigate = useNavigate({ from: "/$kind" });
  const search = useSearch({ from: "/$kind" });
  const list = useQuery(wholeList(cache, kind.path));
  const status = useLive().status;
  const may = mayAs(useSession()?.role, kind.role);
  const about = aboutOf(kind.path);

  // What is typed is filtered by at once, and written into the address a moment later.
  const [q, setQ] = useState(search.q ?? "");
  const typed = useDeferredValue(q);
  useEffect(() => {
    if (q === (search.q ?? "")) return;
    const t = setTimeout(() => void navigate({ search: (s) => ({ ...s, q: q || undefined }), replace: true }), 250);
    return () => clearTimeout(t);
  }, [q, search.q, navigate]);

  const items = useMemo(() => list.data?.items ?? [], [list.data]);
  const owners = useMemo(() => [...new Set(items.map((i) => i.owner ?? ""))].sort(), [items]);
  const rows = useMemo(() => {
    const wanted = typed.toLowerCase().split(/\s+/).filter(Boolean);
    return items.filter(
      (i) =>
        (!search.owner || (i.owner ?? "") === (search.owner === "-" ? "" : search.owner)) &&
        (!search.state || stateOf(i, status).state === search.state) &&
        wanted.every((w) => haystack(i).includes(w)),
    );
  }, [items, typed, search.owner, search.state, status]);

  const columns = useMemo<Column<Item>[]>(
    () => [
      {
        id: "name",
        head: "Name",
        width: "minmax(150px, 1.8fr)",
        value: (i) => i.name,
        cell: (i) => (
          <Link to="/$kind/$name" params={{ kind: kind.path, name: i.name }} title={i.name}>
            {i.name}
          </Link>
        ),
      },
      ...(about.columns ?? []),
      {
        id: "state",
        head: "State",
        width: "minmax(130px, 0.8fr)",
        value: (i) => stateOf(i, status).state,
        cell: (i) => <StateBadge state={stateOf(i, status)} />,
      },
      { id: "owner", head: "Owner", width: "minmax(100px, .9fr)", value: (i) => i.owner ?? "", cell: (i) => (i.owner ? <span title={i.owner}>{i.owner}</span> : <span className="muted">–</span>), wide: true },
      { id: "updated", head: "Changed", width: "minmax(116px, 0.8fr)", value: (i) => i.updated_at ?? "", cell: (i) => <Age at={i.updated_at} />, wide: true },
    ],
    [about, kind.path, status],
  );

  const Icon = about.icon;
  const create = may && (
    <Button component={Link} to={`/${kind.path}/-/new` as "/"} leftSection={<IconPlus size={16} />}>
      New {kind.word}
    </Button>
  );
  const filtered = !!(search.q || search.owner || search.state);
  const clear = () => {
    setQ("");
    void navigate({ search: (s) => ({ ...(s.sort && { sort: s.sort }) }), replace: true });
  };

  return (
    <>
      <PageHead title={kind.plural} actions={create}>
        {firstSentence(kind.description)}
      </PageHead>
      {(items.length > 0 || filtered || q || !list.data) && <div style={{ display: "flex", gap: 8, flexWrap: "wrap", marginBottom: 12, alignItems: "center" }}>
        <TextInput
          aria-label={`Filter ${kind.plural.toLowerCase()}`}
          placeholder="Filter by anything in it"
          leftSection={<IconSearch size={16} />}
          value={q}
          onChange={(e) => setQ(e.currentTarget.value)}
          rightSection={q ? <CloseButton size="sm" aria-label="Clear the filter" onClick={() => setQ("")} /> : null}
          style={{ flex: "1 1 220px", maxWidth: 420 }}
        />
        <Select
          aria-label="State"
          placeholder="Any state"
          clearable
          w={150}
          data={[
            { value: "live", label: "Live" },
            { value: "pending", label: "Going live" },
            { value: "rejected", label: "Refused" },
            { value: "no_proxies", label: "No Envoy" },
          ]}
          value={search.state ?? null}
          onChange={(v) => void navigate({ search: (s) => ({ ...s, state: v ?? undefined }), replace: true })}
        />
        {owners.length > 1 && (
          <Select
            aria-label="Owner"
            placeholder="Any owner"
            clearable
            searchable
            w={180}
            data={owners.map((o) => ({ value: o || "-", label: o || "Nobody" }))}
            value={search.owner ?? null}
            onChange={(v) => void navigate({ search: (s) => ({ ...s, owner: v ?? undefined }), replace: true })}
          />
        )}
        <Text size="sm" className="muted" role="status" aria-live="polite" ml="auto">
          {list.data && (rows.length === items.length ? plural(rows.length, kind.word, kind.plural.toLowerCase()) : `${rows.length.toLocaleString("en")} of ${items.length.toLocaleString("en")}`)}
          {list.isFetching && items.length > 0 ? " · reading…" : ""}
        </Text>
      </div>}
      {list.isError && <div style={{ marginBottom: 12 }}><ErrorNote error={list.error} retry={() => void list.refetch()} /></div>}
      {list.data ? (
        <DataTable
          label={kind.plural}
          rows={rows}
          columns={columns}
          rowKey={(i) => i.name}
          sort={search.sort}
          onSort={(sort) => void navigate({ search: (s) => ({ ...s, sort }), replace: true })}
          empty={
            filtered || q ? (
              <Empty icon={<IconSearchOff size={34} stroke={1.4} />} title="Nothing fits the filter" action={<Button variant="default" onClick={clear}>Clear the filter</Button>}>
                None of {plural(items.length, kind.word, kind.plural.toLowerCase())} is like this.
              </Empty>
            ) : (
              <Empty icon={<Icon size={38} stroke={1.3} />} title={`No ${kind.plural.toLowerCase()} yet`} action={create}>
                {about.good ?? firstSentence(kind.description)}
              </Empty>
            )
          }
        />
      ) : (
        !list.isError && <div className="card"><Loading rows={8} /></div>
      )}
    </>
  );
}
