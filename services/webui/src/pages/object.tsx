import { ActionIcon, Alert, Button, Group, Menu, Stack, Tabs, Text, TextInput } from "@mantine/core";
import { useDebouncedValue } from "@mantine/hooks";
import { IconCopy, IconDots, IconLock, IconTrash, IconWaveSawTool } from "@tabler/icons-react";
import { useQuery } from "@tanstack/react-query";
import { Link, useBlocker, useNavigate, useParams, useSearch } from "@tanstack/react-router";
import { lazy, Suspense, useEffect, useMemo, useRef, useState } from "react";
import { parse } from "yaml";
import { ApiError, etagOf, objects, type ApplyResult, type Draft, type Item, type Spec } from "~/api/client";
import { objectKey, stateOf, useLive } from "~/api/live";
import { mayAs, modelQuery, type Kind, type Model } from "~/api/model";
import { LabelsForm, SchemaForm } from "~/form/fields";
import { aboutOf } from "~/kinds";
import { useSession } from "~/session";
import { NotFound } from "~/shell";
import { Age, Empty, ErrorNote, Loading, Note, PageHead, StateBadge, useTitle } from "~/ui/bits";
import { yamlOf } from "~/ui/diff";
import { CertificateCard } from "./certificate";
import { ServiceHealth } from "./health";
import { History } from "./history";
import { ConflictDialog, DeleteDialog, SaveDialog } from "./save";

const Editor = lazy(() => import("~/form/editor"));

export function ObjectPage() {
  const { kind: path, name } = useParams({ from: "/$kind/$name" });
  const model = useQuery(modelQuery);
  const kind = model.data?.byPath.get(path);
  const item = useQuery({ queryKey: objectKey(path, name), queryFn: () => objects.get(path, name), enabled: !!kind });
  useTitle(name);
  if (model.data && !kind) return <NotFound />;
  if (item.isError && item.error instanceof ApiError && item.error.status === 404 && kind)
    return (
      <div className="card">
        <Empty title={<h1 className="plain">There is no {kind.word} {name}</h1>} action={<Button component={Link} to={`/${path}` as "/"} variant="default">{kind.plural}</Button>}>
          It may have been deleted; <Link className="link" to="/audit" search={{ kind: kind.name, object: name }}>the audit</Link> knows by whom.
        </Empty>
      </div>
    );
  if (item.isError) return <ErrorNote error={item.error} retry={() => void item.refetch()} />;
  if (!model.data || !kind || !item.data) return <div className="card"><Loading rows={10} /></div>;
  return <Editing key={`${path}/${name}`} model={model.data} kind={kind} item={item.data} />;
}

export function NewObject() {
  const { kind: path } = useParams({ from: "/$kind/-/new" });
  const { from } = useSearch({ from: "/$kind/-/new" });
  const model = useQuery(modelQuery);
  const kind = model.data?.byPath.get(path);
  const source = useQuery({ queryKey: objectKey(path, from ?? ""), queryFn: () => objects.get(path, from ?? ""), enabled: !!kind && !!from });
  useTitle(`New ${kind?.word ?? ""}`);
  if (model.data && !kind) return <NotFound />;
  if (!model.data || !kind || (from && source.isPending)) return <div className="card"><Loading rows={10} /></div>;
  return <Editing key={path} model={model.data} kind={kind} start={source.data ? { spec: source.data.spec, ...(source.data.labels && { labels: source.data.labels }) } : undefined} />;
}

const draftOf = (item: Item): Draft => ({ spec: item.spec, ...(item.labels && { labels: item.labels }) });
const same = (a: unknown, b: unknown) => JSON.stringify(a) === JSON.stringify(b);
const nameRule = /^[a-z0-9]([a-z0-9-]*[a-z0-9])?$/;

function Editing({ model, kind, item, start }: { model: Model; kind: Kind; item?: Item; start?: Draft | undefined }) {
  const about = aboutOf(kind.path);
  const navigate = useNavigate();
  const live = useLive().status;
  const may = mayAs(useSession()?.role, kind.role);
  // What is edited, and the version that it was made from.
  const [base, setBase] = useState<Item | undefined>(item);
  const [draft, setDraft] = useState<Draft>(() => (item ? draftOf(item) : (start ?? { spec: about.start ?? {} })));
  const [name, setName] = useState(item?.name ?? "");
  const [tab, setTab] = useState<"form" | "yaml" | "json" | "history">("form");
  const [text, setText] = useState("");
  const [broken, setBroken] = useState<string>();
  const [dialog, setDialog] = useState<"save" | "delete" | "conflict">();
  const dirty = base ? !same(draft, draftOf(base)) : name !== "" || !same(draft.spec, start?.spec ?? about.start ?? {});

  // Somebody else has saved: without changes of one's own the page follows, with them it asks.
  const moved = !!item && !!base && (item.revision ?? 0) > (base.revision ?? 0);
  useEffect(() => {
    if (item && moved && !dirty) {
      setBase(item);
      setDraft(draftOf(item));
    }
  }, [item, moved, dirty]);

  const saved = useRef(false);
  useBlocker({
    shouldBlockFn: () => dirty && !saved.current && !window.confirm("Leave without saving what you have changed?"),
    enableBeforeUnload: () => dirty && !saved.current,
  });

  // The API itself looks at what is written, while it is written.
  const nameError = name && !nameRule.test(name) ? "Lower case letters, digits and hyphens; a letter or digit at both ends" : name.length > 63 ? "At most 63 characters" : undefined;
  const [probe] = useDebouncedValue(useMemo(() => ({ draft, name }), [draft, name]), 400);
  const check = useQuery({
    queryKey: ["check", kind.path, probe.name, probe.draft, base?.revision],
    queryFn: () => objects.put(kind.path, probe.name, probe.draft, { dryRun: true, fresh: !base }) as Promise<ApplyResult>,
    enabled: may && dirty && !broken && !nameError && probe.name !== "",
    retry: false,
    staleTime: 0,
    gcTime: 10_000,
    placeholderData: (old: ApplyResult | undefined) => old,
  });
  const refusal = dirty && check.error instanceof ApiError ? check.error : undefined;
  const errors = refusal?.errors ?? [];
  const elsewhere = errors.filter((e) => e.path === "$" || e.path === "$.spec" || !e.path.startsWith("$.spec"));
  const exists = !base && refusal?.status === 412;

  const open = (next: string) => {
    if (next === "yaml") setText(yamlOf({ ...(draft.labels && { labels: draft.labels }), spec: draft.spec }));
    if (next === "json") setText(`${JSON.stringify({ ...(draft.labels && { labels: draft.labels }), spec: draft.spec }, null, 2)}\n`);
    setBroken(undefined);
    setTab(next as typeof tab);
  };
  const type = (t: string) => {
    setText(t);
    try {
      const doc = (tab === "yaml" ? parse(t) : JSON.parse(t)) as Record<string, unknown> | null;
      if (typeof doc !== "object" || doc === null || typeof doc["spec"] !== "object" || doc["spec"] === null) throw new Error("There must be a spec, and what belongs to it indented below");
      const unknown = Object.keys(doc).filter((k) => !["spec", "labels", "kind", "name", "owner"].includes(k));
      if (unknown.length) throw new Error(`${unknown.join(", ")}: not known here; an object has spec and labels`);
      setBroken(undefined);
      setDraft({ spec: doc["spec"] as Spec, ...(doc["labels"] ? { labels: doc["labels"] as Record<string, string> } : base?.labels ? { labels: {} } : {}) });
    } catch (e) {
      setBroken(e instanceof Error ? e.message.split("\n")[0] : String(e));
    }
  };
  const discard = () => {
    setDraft(base ? draftOf(base) : (start ?? { spec: about.start ?? {} }));
    if (!base) setName("");
    open("form");
  };

  const Icon = about.icon;
  return (
    <>
      <PageHead
        beside
        title={
          <Group gap="sm" wrap="nowrap" align="center">
            <Icon size={24} stroke={1.6} style={{ flex: "none" }} aria-hidden />
            <span style={{ minWidth: 0 }}>{base?.name ?? `New ${kind.word}`}</span>
          </Group>
        }
        actions={
          base && (
            <Menu position="bottom-end" shadow="md">
              <Menu.Target>
                <ActionIcon size="lg" variant="default" aria-label="More actions">
                  <IconDots size={18} />
                </ActionIcon>
              </Menu.Target>
              <Menu.Dropdown>
                {(kind.path === "routes" || kind.path === "gateways") && (
                  <Menu.Item leftSection={<IconWaveSawTool size={16} />} onClick={() => void navigate({ to: "/access-log", search: { [kind.path === "routes" ? "route" : "gateway"]: base.name } })}>
                    Watch its requests
                  </Menu.Item>
                )}
                <Menu.Item leftSection={<IconCopy size={16} />} onClick={() => void navigate({ to: "/$kind/-/new", params: { kind: kind.path }, search: { from: base.name } })} disabled={!may}>
                  Make another one like this
                </Menu.Item>
                <Menu.Item color="red" leftSection={<IconTrash size={16} />} onClick={() => setDialog("delete")} disabled={!may}>
                  Delete
                </Menu.Item>
              </Menu.Dropdown>
            </Menu>
          )
        }
      >
        <Group gap="4px 12px">
          <Link className="link" to="/$kind" params={{ kind: kind.path }}>
            {kind.plural}
          </Link>
          {base && item && (
            <>
              <StateBadge state={stateOf(item, live)} />
              <span>revision {item.revision}</span>
              <span>changed <Age at={item.updated_at} /></span>
              {item.owner && <span>owner {item.owner}</span>}
            </>
          )}
        </Group>
      </PageHead>

      <Stack gap="md" pb={dirty ? 90 : 0}>
        {item && <Refusal item={item} />}
        {item && kind.name === "Certificate" && <CertificateCard item={item} />}
        {item && kind.name === "Service" && <ServiceHealth name={item.name} />}
        {moved && dirty && (
          <Note tone="warn" title="Somebody else has changed this meanwhile" action={<Button size="xs" variant="default" onClick={() => setDialog("conflict")}>Compare</Button>}>
            <Text size="sm">You began with revision {base.revision}; it is {item.revision} now. Nothing of either is lost.</Text>
          </Note>
        )}
        {base?.owner && may && (
          <Note tone="warn" title={`${base.owner} keeps this ${kind.word}`}>
            <Text size="sm">{ownerText(base.owner)} What you change here may be written over the next time.</Text>
          </Note>
        )}
        {!may && (
          <Alert icon={<IconLock size={18} />} color="gray" variant="light">
            Your token may read this. Writing a {kind.word} needs the role {kind.role}.
          </Alert>
        )}
        <Tabs value={tab} onChange={(v) => v && open(v)} keepMounted={false}>
          <Tabs.List mb="md">
            <Tabs.Tab value="form">Form</Tabs.Tab>
            <Tabs.Tab value="yaml">YAML</Tabs.Tab>
            <Tabs.Tab value="json">JSON</Tabs.Tab>
            {base && <Tabs.Tab value="history">History</Tabs.Tab>}
          </Tabs.List>
          <Tabs.Panel value={tab}>
          {tab !== "history" && !base && (
            <div className="card" style={{ padding: 20, marginBottom: 12 }}>
              <TextInput
                label="Name"
                description="By which others refer to it. It stays."
                value={name}
                onChange={(e) => setName(e.currentTarget.value)}
                error={nameError ?? (exists ? `There is a ${kind.word} of this name already` : elsewhere.find((e) => e.path === "$.name")?.message)}
                required
                maw={420}
                autoFocus
                autoComplete="off"
              />
            </div>
          )}
          {tab === "form" && (
            <div className="card" style={{ padding: 20 }}>
              <Stack gap="xl">
                <SchemaForm model={model} schema={kind.spec} value={draft.spec} onChange={(spec) => setDraft((d) => ({ ...d, spec }))} errors={errors} readOnly={!may} usual={about.usual?.(draft.spec)} hides={about.hides?.(draft.spec)} />
                <LabelsForm model={model} value={draft.labels} onChange={(labels) => setDraft(({ spec }) => ({ spec, ...(labels ? { labels } : base?.labels ? { labels: {} } : {}) }))} readOnly={!may} />
              </Stack>
            </div>
          )}
          {(tab === "yaml" || tab === "json") && (
            <Stack gap="sm">
              <Suspense fallback={<div className="card"><Loading rows={8} /></div>}>
                <Editor key={tab} value={text} onChange={type} language={tab} readOnly={!may} label={`${kind.name} as ${tab.toUpperCase()}`} />
              </Suspense>
              {broken && <Note tone="bad" title="This cannot be read"><Text size="sm">{broken}</Text></Note>}
              {errors.filter((e) => !elsewhere.includes(e)).map((e) => (
                <Text size="sm" c="var(--mp-bad)" key={e.path + e.message}>
                  <span className="mono">{e.path}</span> {e.message}
                </Text>
              ))}
            </Stack>
          )}
          {tab === "history" && base && <History kind={kind} name={base.name} />}
          </Tabs.Panel>
        </Tabs>
        {refusal && !exists && refusal.status !== 412 && (elsewhere.some((e) => e.path !== "$.name") || errors.length === 0) && <ErrorNote error={refusal} />}
      </Stack>

      {dirty && may && (
        <div className="savebar" role="region" aria-label="Unsaved changes">
          <Text size="sm" className="cut">
            {broken || errors.length ? `${errors.length || 1} ${errors.length > 1 ? "things are" : "thing is"} to be put right` : check.isFetching ? "Checking…" : base ? "Changes that are not saved" : "Not saved yet"}
          </Text>
          <Group gap="xs" wrap="nowrap">
            <Button variant="default" onClick={discard}>
              Discard
            </Button>
            <Button onClick={() => (moved ? setDialog("conflict") : setDialog("save"))} disabled={!!broken || !!nameError || !name}>
              Review and save
            </Button>
          </Group>
        </div>
      )}

      {dialog === "save" && (
        <SaveDialog
          kind={kind}
          name={name}
          draft={draft}
          base={base}
          onSaved={() => {
            saved.current = true;
          }}
          onDone={(now) => {
            setDialog(undefined);
            if (!now) return;
            setBase(now);
            setDraft(draftOf(now));
            if (!base) void navigate({ to: "/$kind/$name", params: { kind: kind.path, name }, replace: true });
            else saved.current = false;
          }}
          onConflict={() => setDialog("conflict")}
        />
      )}
      {dialog === "delete" && base && (
        <DeleteDialog
          kind={kind}
          name={base.name}
          etag={etagOf(base.revision)}
          onClose={() => setDialog(undefined)}
          onDeleted={() => {
            saved.current = true;
            void navigate({ to: "/$kind", params: { kind: kind.path } });
          }}
        />
      )}
      {dialog === "conflict" && base && (
        <ConflictDialog
          kind={kind}
          base={base}
          draft={draft}
          onClose={() => setDialog(undefined)}
          onMine={(theirs) => {
            setBase(theirs);
            setDialog("save");
          }}
          onTheirs={(theirs) => {
            setBase(theirs);
            setDraft(draftOf(theirs));
            setDialog(undefined);
          }}
        />
      )}
    </>
  );
}

const ownerText = (owner: string) =>
  /^(discover|docker|nomad|consul|srv)/.test(owner) ? "A program that finds services writes it." : "A file or another program applies it.";

/** Why an Envoy does not serve an object, in Envoy's words. */
function Refusal({ item }: { item: Item }) {
  const status = useLive().status;
  const state = stateOf(item, status);
  if (state.state !== "rejected") return null;
  const all = status?.rejected?.filter((r) => r.kind === item.kind && r.name === item.name) ?? [];
  return (
    <Note tone="bad" title="Envoy refuses this">
      <Text size="sm">The last version that it took is served; all else goes on. It says:</Text>
      {(all.length ? all : [{ reason: state.reason ?? "", gateway: "", resource: "" }]).map((r) => (
        <Text key={r.gateway + (r.resource ?? "")} size="sm" className="mono" mt={6} style={{ whiteSpace: "pre-wrap" }}>
          {r.reason}
          {r.gateway && <span className="muted">{`\ngateway ${r.gateway}${r.resource ? `, ${r.resource}` : ""}`}</span>}
        </Text>
      ))}
    </Note>
  );
}
