import { Button, Group, SimpleGrid, Stack, Text, Title } from "@mantine/core";
import { IconCircleCheck, IconPlus, IconRocket } from "@tabler/icons-react";
import { useQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import { lazy, Suspense, type ReactNode } from "react";
import { client, take, type LiveStatus, type Status } from "~/api/client";
import { useLive } from "~/api/live";
import { trafficQuery, whyUnhealthy } from "~/api/traffic";
import { mayAs, modelQuery, type Model } from "~/api/model";
import { useSession } from "~/session";
import { statusQuery } from "~/shell";
import { Age, Empty, ErrorNote, Loading, Note, PageHead, plural, useTitle, type Tone } from "~/ui/bits";

const TrafficSection = lazy(() => import("./traffic").then((m) => ({ default: m.TrafficSection })));

export const revisionsQuery = {
  queryKey: ["revisions", "newest"],
  queryFn: () => take(client.GET("/v1/revisions", { params: { query: { limit: 8 } as never } })),
};

export function Overview() {
  useTitle("Overview");
  // That an Envoy lacks something is spoken of when it has for five seconds, and no event says that they are over.
  const status = useQuery({ ...statusQuery, refetchInterval: ({ state: { data } }) => (data && data.proxies > 0 && (data.live_revision < data.revision || (data.lagging_proxies ?? 0) > 0) ? 3_000 : false) });
  const live = useLive();
  const { data: model, isPending: reading } = useQuery(modelQuery);
  const revisions = useQuery(revisionsQuery);
  const role = useSession()?.role;
  const mayPublish = !!model && ["services", "routes"].every((p) => mayAs(role, model.byPath.get(p)?.role ?? "admin"));
  if (status.isError && !status.data) return <ErrorNote error={status.error} retry={() => void status.refetch()} />;
  if (!status.data || reading) return <div className="card"><Loading rows={10} /></div>; // what comes later would move the rest
  const s = merge(status.data, live.status, live.head);
  return (
    <>
      <PageHead title="Overview" actions={mayPublish && !isNew(s) && <Button component={Link} to="/publish" leftSection={<IconPlus size={16} />}>Publish a service</Button>}>What is stored, what the Envoys serve of it, and what needs somebody.</PageHead>
      <Stack gap="lg">
        <Tiles s={s} />
        {mayPublish && isNew(s) && <Start />}
        <Suspense fallback={<div className="card" style={{ minHeight: 290 }}><Loading rows={6} /></div>}>
          <TrafficSection />
        </Suspense>
        <SimpleGrid cols={{ base: 1, lg: 2 }} spacing="lg">
          <section aria-labelledby="attention">
            <div className="section-head"><Title order={2} id="attention">Needs attention</Title></div>
            <Attention s={s} model={model} />
          </section>
          <section aria-labelledby="recent">
            <div className="section-head">
              <Title order={2} id="recent">Last changes</Title>
              <Link className="link" to="/revisions"><Text size="sm" span>All revisions</Text></Link>
            </div>
            <div className="card rows">
              {revisions.data?.items.map((r) => (
                <Group key={r.revision} px="md" py={10} wrap="nowrap" gap="sm">
                  <Link className="link" to="/revisions/$revision" params={{ revision: String(r.revision) }} style={{ flex: "none" }}>
                    <Text size="sm" span fw={600}>{r.revision}</Text>
                  </Link>
                  <Text size="sm" className="cut" style={{ flex: 1 }} title={r.message}>
                    {r.message || plural(r.change_count, "change")} <span className="muted">by {r.actor}</span>
                  </Text>
                  <Text size="sm" className="muted" style={{ flex: "none" }}><Age at={r.at} /></Text>
                </Group>
              ))}
              {revisions.data?.items.length === 0 && <Empty title="Nothing has been changed yet" />}
              {revisions.isPending && <Loading rows={5} />}
            </div>
          </section>
        </SimpleGrid>
      </Stack>
    </>
  );
}

// The events are newer than what was read, where they say the same things.
function merge(s: Status, live: LiveStatus | undefined, head: number): Status {
  if (!live) return s;
  return {
    ...s,
    revision: Math.max(s.revision, head),
    live_revision: Math.max(s.live_revision, live.live_revision),
    proxies: live.proxies,
    rejected: live.rejected ?? [],
    rejected_objects: live.rejected_objects ?? 0,
    lagging_proxies: live.lagging_proxies ?? 0,
    troubles: live.troubles ?? [],
    progress: live.progress ?? [],
  };
}

function Tile({ label, number, children, tone, to }: { label: string; number: ReactNode; children: ReactNode; tone?: Tone; to?: string }) {
  return (
    <div className="card tile">
      <Text size="sm" className="muted" fw={500}>{label}</Text>
      <div className="tile-number" style={tone ? { color: `var(--mp-${tone})` } : {}}>
        {to ? <Link to={to as "/"} className="plain-link">{number}</Link> : number}
      </div>
      <Text size="sm" className="muted" component="div">{children}</Text>
    </div>
  );
}

function Tiles({ s }: { s: Status }) {
  const behind = s.revision - s.live_revision;
  const rejected = s.rejected_objects ?? s.rejected.length;
  const lagging = s.lagging_proxies ?? 0;
  const objects = Object.values(s.state ?? {}).reduce((n, k) => n + k.count, 0);
  return (
    <SimpleGrid cols={{ base: 2, md: 4 }} spacing={{ base: "sm", md: "lg" }}>
      <Tile label="Stored" number={s.revision.toLocaleString("en")} to="/revisions">
        last revision{s.published_revision < s.revision ? `, ${s.revision - s.published_revision} not published` : ", published"}
      </Tile>
      <Tile label="Live" number={s.proxies === 0 ? "–" : s.live_revision.toLocaleString("en")} {...(s.proxies > 0 && behind > 0 && { tone: "info" as const })}>
        {s.proxies === 0 ? "no Envoy is connected" : behind > 0 ? `${plural(behind, "revision")} on the way` : "every Envoy has the last one"}
      </Tile>
      <Tile label="Envoys" number={s.proxies.toLocaleString("en")} to="/envoys" {...(lagging > 0 && { tone: "warn" as const })}>
        {lagging > 0 ? `${lagging} behind` : s.proxies ? "all in step" : "start one, or an agent"}
      </Tile>
      <Tile label="Objects" number={objects.toLocaleString("en")} {...(rejected > 0 && { tone: "bad" as const })}>
        {rejected > 0 ? `${rejected} refused by Envoy` : "none refused"}
      </Tile>
    </SimpleGrid>
  );
}

/** Services with failing endpoints that are spoken of one by one. */
const mostFailing = 4;

type Item = { tone: "bad" | "warn" | "info"; title: ReactNode; text: ReactNode };

function Attention({ s, model }: { s: Status; model: Model | undefined }) {
  const link = (kind: string, name: string) => {
    const path = model?.byName.get(kind)?.path;
    return path ? <Link className="link" to="/$kind/$name" params={{ kind: path, name }}>{kind} {name}</Link> : <>{kind} {name}</>;
  };
  const traffic = useQuery(trafficQuery).data;
  const failing = traffic?.unhealthy ?? [];
  const items: Item[] = [
    ...s.rejected.map((r) => ({ tone: "bad" as const, title: <>Envoy refuses {link(r.kind, r.name)}</>, text: <span className="mono">{r.reason}</span> })),
    ...(s.troubles ?? []).map((t) => ({ tone: "bad" as const, title: t.part, text: <>{t.reason} {t.since && <span className="muted">since <Age at={t.since} /></span>}</> })),
    ...failing.slice(0, failing.length > mostFailing ? mostFailing - 1 : mostFailing).map((u) => ({
      tone: "warn" as const,
      title: <>{plural(u.endpoints.length, "endpoint")} of {link("Service", u.service)} {u.endpoints.length === 1 ? "gets" : "get"} no requests</>,
      text: <>{u.endpoints.slice(0, 3).map((e, i) => <span key={e.address}>{i > 0 && ", "}<span className="mono">{e.address}</span> {whyUnhealthy(e.reason)}</span>)}{u.endpoints.length > 3 && ` and ${u.endpoints.length - 3} more`}</>,
    })),
    ...(failing.length > mostFailing
      ? [{ tone: "warn" as const, title: `${(traffic?.unhealthy_services ?? 0) - mostFailing + 1} more services have endpoints that get no requests`, text: <>{failing.slice(mostFailing - 1, mostFailing + 9).map((u, i) => <span key={u.service}>{i > 0 && ", "}{link("Service", u.service)}</span>)}{failing.length > mostFailing + 9 && " and others"}</> }]
      : []),
    ...(s.lagging ?? []).slice(0, 5).map((l) => ({ tone: "warn" as const, title: <>Envoy {l.id} is behind</>, text: <>waits for {l.resource ?? "an answer"} <span className="muted">since <Age at={l.since} /></span></> })),
    ...(s.warnings ?? []).map((w) => ({ tone: "warn" as const, title: link(w.kind, w.name), text: w.message })),
    ...(s.licenses ?? []).filter((l) => l.warning).map((l) => ({ tone: "warn" as const, title: link("License", l.name), text: l.warning })),
    ...(s.names ?? []).map((n) => ({ tone: "warn" as const, title: <>The name {n.host} does not resolve</>, text: <>{n.reason}{n.services?.length ? <>; of {n.services.slice(0, 3).map((x, i) => <span key={x}>{i > 0 && ", "}{link("Service", x)}</span>)}</> : null}</> })),
    ...(s.proxies === 0 ? [{ tone: "info" as const, title: "No Envoy is connected", text: "What is stored is served as soon as one is. The agent starts one on each node." }] : []),
    ...(traffic?.silent ?? []).filter((r) => r.state === "old").slice(0, 3).map((r) => ({ tone: "warn" as const, title: <>Nothing new of Envoy {r.proxy}</>, text: <>{r.reason}{r.at && <span className="muted">; it answered last <Age at={r.at} /></span>}</> })),
    ...(s.progress ?? []).map((p) => ({ tone: "info" as const, title: p.who, text: `${p.what}${p.total ? `, ${p.done} of ${p.total}` : ""}` })),
  ];
  if (items.length === 0)
    return (
      <div className="card">
        <Empty small icon={<IconCircleCheck size={38} stroke={1.4} color="var(--mp-ok)" />} title="Everything is as it should be">
          No object is refused, no Envoy is behind, no endpoint fails, no certificate ends soon.
        </Empty>
      </div>
    );
  return (
    <Stack gap="xs">
      {items.slice(0, 12).map((i, n) => (
        <Note key={n} tone={i.tone} title={i.title}>
          <Text size="sm" component="div">{i.text}</Text>
        </Note>
      ))}
      {items.length > 12 && <Text size="sm" className="muted">and {items.length - 12} more</Text>}
    </Stack>
  );
}

/** Whether there is little more than what comes with the system. */
const isNew = (s: Status) => (s.state?.["Route"]?.count ?? 0) <= 3;

/** What a newcomer makes first. */
function Start() {
  return (
    <Link to="/publish" className="card tile plain-link">
      <Group wrap="nowrap" align="center">
        <IconRocket size={26} stroke={1.5} style={{ flex: "none" }} aria-hidden />
        <div style={{ flex: 1 }}>
          <Text fw={650}>Put your own service behind the proxy</Text>
          <Text size="sm" className="muted">A host name, and where your program listens. It is live when the page says so.</Text>
        </div>
        <IconPlus size={18} style={{ flex: "none" }} aria-hidden />
      </Group>
    </Link>
  );
}
