import { Button, Group, Stack, Table, Text, Title } from "@mantine/core";
import { useQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import { useState } from "react";
import type { Schemas } from "~/api/client";
import { healthQuery, whyUnhealthy } from "~/api/traffic";
import { Age, Empty, ErrorNote, Loading, Pill, plural, type Tone } from "~/ui/bits";

type Endpoint = Schemas["ServiceHealth"]["endpoints"][number];
type Order = Schemas["PlaceOrder"];
const states: Record<string, [Tone, string]> = { healthy: ["ok", "Healthy"], unhealthy: ["bad", "Fails"], mixed: ["warn", "Fails at some"], unchecked: ["idle", "Not checked"], unknown: ["idle", "Unknown"] };
const worst = ["unhealthy", "mixed", "unknown", "healthy", "unchecked"];
const few = 8;

/** Which endpoints of a service get requests, as its Envoys see them. */
export function ServiceHealth({ name }: { name: string }) {
  const query = useQuery(healthQuery(name));
  const [all, setAll] = useState(false);
  const h = query.data;
  const endpoints = h ? [...h.endpoints].sort((a, b) => worst.indexOf(a.state) - worst.indexOf(b.state)) : [];
  const fails = endpoints.filter((e) => e.state === "unhealthy" || e.state === "mixed").length;
  const shown = all ? endpoints : endpoints.slice(0, Math.max(few, fails > few ? 2 * few : 0));
  const old = h?.proxies.filter((p) => p.state !== "current") ?? [];
  return (
    <section aria-labelledby="health">
      <div className="section-head">
        <Title order={2} id="health">Health of the endpoints</Title>
        {h && (
          <Text size="sm" className="muted" role="status">
            {!h.checked ? "nobody checks them" : fails ? `${fails.toLocaleString("en")} of ${plural(endpoints.length, "endpoint")} fail` : plural(endpoints.length, "endpoint")}
          </Text>
        )}
      </div>
      {query.isError && !h && <ErrorNote error={query.error} retry={() => void query.refetch()} />}
      {query.isPending && <div className="card"><Loading rows={3} /></div>}
      {h && (
        <div className="card rows">
          {endpoints.length === 0 && <Empty small title="It has no endpoints">Requests to it are answered with 503.</Empty>}
          {shown.map((e) => <Row key={`${e.host}:${e.port} ${e.address ?? ""}`} e={e} />)}
          {shown.length < endpoints.length && (
            <Group px="md" py={10}>
              <Button variant="default" size="xs" onClick={() => setAll(true)}>Show all {endpoints.length.toLocaleString("en")}</Button>
            </Group>
          )}
          {!h.checked && endpoints.length > 0 && <Text size="sm" className="muted" px="md" py={10}>Each gets its share of the requests, whether it answers or not. With a health check or outlier detection those that fail are left out.</Text>}
          {h.checked && h.proxies.length === 0 && <Text size="sm" className="muted" px="md" py={10}>No connected Envoy has a route to it, so nobody has looked.</Text>}
          {h.checked && old.length > 0 && (
            <Stack px="md" py={10} gap={4}>
              {[...new Set(old.map((p) => p.reason))].map((reason) => [reason, old.filter((p) => p.reason === reason)] as const).map(([reason, of]) => (
                <Text key={reason} size="sm" className="muted">
                  Nothing {of[0]?.at ? "new" : "known"} of {of.length === 1 ? "Envoy" : "the Envoys"}{" "}
                  {of.slice(0, 5).map((p, i) => (
                    <span key={p.proxy + (p.node ?? "")}>{i > 0 && ", "}<Link className="link" to="/envoys" search={{ id: p.proxy }}>{p.proxy}</Link>{p.at && <> (it answered last <Age at={p.at} />)</>}</span>
                  ))}
                  {of.length > 5 && ` and ${(of.length - 5).toLocaleString("en")} more`}: {reason}.
                </Text>
              ))}
            </Stack>
          )}
        </div>
      )}
      {!!h?.orders?.length && <Orders of={h.orders} />}
    </section>
  );
}

const place = (p: { cloud?: string; region?: string; zone?: string }) => [p.cloud, p.region, p.zone].filter(Boolean).join(" / ") || "without a place";
const milliseconds = (ms: number | undefined) => `${(ms ?? 0).toLocaleString("en", { maximumFractionDigits: (ms ?? 0) < 10 ? 1 : 0 })} ms`;

/** In which order the Envoys of each place use the service's places, and how soon those answer. */
function Orders({ of }: { of: Order[] }) {
  return (
    <>
      <div className="section-head"><Title order={3} size="h4">Order of the places</Title><Text size="sm" className="muted">by the latency that the Envoys measure</Text></div>
      <div className="card rows">
        {of.map((o) => (
          <div key={place(o)} style={{ padding: "10px 16px", overflowX: "auto" }}>
            <Text size="sm" fw={600}>From {place(o)} <Text span size="sm" className="muted" fw={400}>{plural(o.proxies ?? 0, "Envoy")}</Text></Text>
            <Table verticalSpacing={4} horizontalSpacing="xs" aria-label={`Places as seen from ${place(o)}`}>
              <Table.Thead><Table.Tr><Table.Th>Place</Table.Th><Table.Th ta="right">Priority</Table.Th><Table.Th ta="right">Now</Table.Th><Table.Th ta="right">Ordered by</Table.Th></Table.Tr></Table.Thead>
              <Table.Tbody>
                {o.places.map((p) => (
                  <Table.Tr key={place(p)}>
                    <Table.Td>{place(p)}</Table.Td>
                    <Table.Td ta="right">{p.priority ?? 0}</Table.Td>
                    <Table.Td ta="right" className="nowrap">{p.measured ? milliseconds(p.latency_ms) : "not measured"}</Table.Td>
                    <Table.Td ta="right" className="nowrap">{p.measured ? milliseconds(p.steady_ms) : "–"}</Table.Td>
                  </Table.Tr>
                ))}
              </Table.Tbody>
            </Table>
          </div>
        ))}
      </div>
    </>
  );
}

function Row({ e }: { e: Endpoint }) {
  const [tone, word] = states[e.state] ?? ["idle", e.state];
  const failing = e.views.filter((v) => v.state === "unhealthy");
  const first = failing[0];
  return (
    <Group px="md" py={10} gap="sm" wrap="nowrap" align="baseline" className="health-row">
      <div style={{ flex: "none", width: 118 }}><Pill tone={tone}>{word}</Pill></div>
      <div style={{ minWidth: 0, flex: 1 }}>
        <Text size="sm" className="mono" style={{ overflowWrap: "anywhere" }}>{e.host}:{e.port}{e.address && <span className="muted"> {e.address}</span>}</Text>
        {(first || e.endpoint_set) && (
          <Text size="sm" className="muted" component="div">
            {first && <>{whyUnhealthy(first.reason)} at {failing.length === 1 ? <>Envoy {first.proxy}</> : `${failing.length.toLocaleString("en")} of ${plural(e.views.length, "Envoy")}`}</>}
            {first && e.endpoint_set && " · "}
            {e.endpoint_set && <>from <Link className="link" to="/$kind/$name" params={{ kind: "endpoint-sets", name: e.endpoint_set }}>{e.endpoint_set}</Link></>}
          </Text>
        )}
      </div>
    </Group>
  );
}
