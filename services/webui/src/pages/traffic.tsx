import { Group, Select, SimpleGrid, Skeleton, Text, Title } from "@mantine/core";
import { IconActivity } from "@tabler/icons-react";
import { useQuery } from "@tanstack/react-query";
import { lazy, Suspense, useState, type ReactNode } from "react";
import type { Schemas } from "~/api/client";
import { trafficQuery } from "~/api/traffic";
import { Empty, ErrorNote, plural } from "~/ui/bits";
import type { Line } from "~/ui/chart";

const Chart = lazy(() => import("~/ui/chart"));

type Summary = Schemas["MetricsSummary"];
type Traffic = Schemas["GatewayTraffic"];

const seconds = (at: string) => Date.parse(at) / 1000;
const short = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const rate = (v: number) => (v !== 0 && v < 1 ? v.toFixed(2) : short.format(v));
const time = (ms: number) => (ms < 1 ? "<1 ms" : ms < 1000 ? `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms` : `${(ms / 1000).toFixed(ms < 10_000 ? 1 : 0)} s`);
const axisTime = (ms: number) => (ms < 1000 ? `${ms} ms` : `${ms / 1000} s`);
const percent = (v: number) => (v === 0 ? "0 %" : v < 0.1 ? "<0.1 %" : `${v < 10 ? v.toFixed(1) : Math.round(v)} %`);

/** Each interval's place, so that one that nobody has told of is a gap. */
function over<T>(s: Summary, of: { at: string }[], value: (i: number) => T): { at: number[]; values: (T | null)[] } {
  const step = s.interval_seconds;
  const end = Math.floor(seconds(s.at) / step) * step;
  const at = Array.from({ length: 60 }, (_, i) => end - (60 - i) * step);
  const by = new Map(of.map((x, i) => [Math.round(seconds(x.at)), i]));
  return { at, values: at.map((t) => (by.has(t) ? value(by.get(t) as number) : null)) };
}

/** Requests, errors, latency of the last minutes, and what the kernels dropped. */
export function TrafficSection() {
  const query = useQuery(trafficQuery);
  const [gateway, setGateway] = useState<string | null>(null);
  const s = query.data;
  const of = s && ((gateway && s.gateways.find((g) => g.gateway === gateway)) || s.total);
  return (
    <section aria-labelledby="traffic">
      <div className="section-head" style={{ alignItems: "center", flexWrap: "wrap" }}>
        <Title order={2} id="traffic">Traffic of the last ten minutes</Title>
        {s && s.gateways.length > 1 && (
          <Select aria-label="Gateway" size="xs" w={180} placeholder="All gateways" clearable data={s.gateways.map((g) => g.gateway)} value={gateway} onChange={setGateway} />
        )}
      </div>
      {query.isError && !s && <ErrorNote error={query.error} retry={() => void query.refetch()} />}
      {!s && !query.isError && <SimpleGrid cols={{ base: 1, sm: 2, xl: 4 }} spacing="lg" aria-busy="true">{[1, 2, 3, 4].map((i) => <div key={i} className="card tile"><Skeleton h={188} /></div>)}</SimpleGrid>}
      {s && of && (of.reporting === 0 && of.intervals.length === 0 ? <Nothing s={s} /> : <Charts s={s} of={of} />)}
    </section>
  );
}

function Nothing({ s }: { s: Summary }) {
  return (
    <div className="card">
      <Empty small icon={<IconActivity size={38} stroke={1.3} />} title={s.total.proxies ? "Nobody tells of the Envoys yet" : "No Envoy is connected"}>
        {s.total.proxies ? "The agent that runs an Envoy tells of its traffic some seconds after its start. An Envoy that no agent runs serves as well, and is not seen here." : "Requests, errors and latency are shown here as soon as one serves."}
      </Empty>
    </div>
  );
}

function Charts({ s, of }: { s: Summary; of: Traffic }) {
  const step = s.interval_seconds;
  // Of the last interval some Envoys may not have told yet.
  const last = of.intervals[of.intervals.length - 1];
  const n = last && last.reports < of.reporting ? of.intervals.slice(0, -1) : of.intervals;
  const known = n.length * step || 1;
  const answers = of.answers;
  const errors = answers.server_error ?? 0;
  const refused = answers.client_error ?? 0;
  const line = (label: string, color: string, value: (i: Traffic["intervals"][number]) => number | null, fill?: boolean): Line => ({ label, color, values: over(s, n, (i) => value(n[i]!)).values, ...(fill && { fill }) });
  const { at } = over(s, n, () => null);
  const range = { from: at[0]!, to: (at[at.length - 1] ?? 0) + step };
  const dropped = s.dropped.reduce((sum, d) => sum + d.packets, 0);
  const shown = s.dropped.slice(0, 3);
  const colours = ["--mp-bad", "--mp-warn", "--mp-info"];
  const behind = of.proxies - of.reporting;
  return (
    <>
      <SimpleGrid cols={{ base: 1, sm: 2, xl: 4 }} spacing="lg">
        <Card title="Requests" number={<>{rate(of.requests / known)}<small> a second</small></>} text={`${of.requests.toLocaleString("en")} in all`}>
          <Chart label={`Requests a second: ${rate(of.requests / known)} on average`} at={at} {...range} write={rate} lines={[line("a second", "--mp-info", (i) => i.requests / step, true)]} />
        </Card>
        <Card title="Errors" number={percent((100 * errors) / Math.max(1, of.requests))} bad={errors > 0} text={`${errors.toLocaleString("en")} answers of 5xx, ${refused.toLocaleString("en")} of 4xx`}>
          <Chart label={`Errors: ${errors} answers of 5xx, ${refused} of 4xx`} at={at} {...range} write={rate} lines={[line("5xx a second", "--mp-bad", (i) => (i.answers?.server_error ?? 0) / step, true), line("4xx a second", "--mp-warn", (i) => (i.answers?.client_error ?? 0) / step)]} />
        </Card>
        <Card title="Latency" number={of.latency ? time(of.latency.p95) : "–"} text={of.latency ? `95 of 100 are faster; half in ${time(of.latency.p50)}, 99 in ${time(of.latency.p99)}` : "no request was answered"}>
          <Chart label={of.latency ? `Latency: half in ${time(of.latency.p50)}, 95 of 100 in ${time(of.latency.p95)}` : "Latency: no requests"} at={at} {...range} write={axisTime} lines={[line("p50", "--mp-ok", (i) => i.latency?.p50 ?? null), line("p95", "--mp-info", (i) => i.latency?.p95 ?? null), line("p99", "--mp-warn", (i) => i.latency?.p99 ?? null)]} />
        </Card>
        <Card title="Dropped in the kernel" number={short.format(dropped)} text={dropped ? s.dropped.slice(0, 3).map((d) => `${d.reason.replace(/_/g, " ")} ${short.format(d.packets)}`).join(", ") : "no node has dropped a packet"}>
          <Chart label={`Packets dropped by the kernels: ${dropped}`} at={at} {...range} write={rate} lines={(shown.length ? shown : [{ reason: "packets", intervals: [] }]).map((d, i) => ({ label: `${d.reason.replace(/_/g, " ")} a second`, color: colours[i]!, fill: i === 0, values: over(s, d.intervals, (j) => d.intervals[j]!.packets / step).values.map((v) => v ?? 0) }))} />
        </Card>
      </SimpleGrid>
      {behind > 0 && <Text size="sm" className="muted" mt="sm">Of {plural(behind, "Envoy")} of {of.proxies.toLocaleString("en")} nobody tells: what they do is not in these figures.</Text>}
    </>
  );
}

const Card = ({ title, number, text, bad, children }: { title: string; number: ReactNode; text: string; bad?: boolean; children: ReactNode }) => (
  <div className="card tile traffic-tile">
    <Group justify="space-between" align="baseline" wrap="nowrap" gap="sm">
      <Text size="sm" className="muted" fw={500}>{title}</Text>
    </Group>
    <div className="tile-number" style={bad ? { color: "var(--mp-bad)" } : {}}>{number}</div>
    <Text size="sm" className="muted" mb={6} title={text} lineClamp={2} mih={40}>{text}</Text>
    <Suspense fallback={<Skeleton h={132} />}>{children}</Suspense>
  </div>
);
