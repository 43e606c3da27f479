import { Group, SimpleGrid, Stack, Table, Text, Title } from "@mantine/core";
import { useQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import { client, take } from "~/api/client";
import { NodeIcon } from "~/kinds";
import { Age, Empty, ErrorNote, Loading, Note, PageHead, Pill, useTitle } from "~/ui/bits";

const modes: Record<string, string> = { native: "XDP in the driver", skb: "XDP in the kernel's stack (slower)", hw: "XDP in the card" };
const reasons = (m: Record<string, number> | undefined) => Object.entries(m ?? {}).sort((a, b) => b[1] - a[1]);
const sum = (m: Record<string, number> | undefined) => Object.values(m ?? {}).reduce((n, x) => n + x, 0);

export function Nodes() {
  useTitle("Nodes");
  const list = useQuery({ queryKey: ["nodes"], queryFn: () => take(client.GET("/v1/nodes")), refetchInterval: 5_000 });
  return (
    <>
      <PageHead title="Nodes">The machines whose agents report: what their kernels let through and drop, before a packet costs anything.</PageHead>
      {list.isError && <ErrorNote error={list.error} retry={() => void list.refetch()} />}
      {list.isPending && <div className="card"><Loading /></div>}
      {list.data?.items.length === 0 && (
        <div className="card">
          <Empty icon={<NodeIcon size={38} stroke={1.3} />} title="No agent reports">
            The agent keeps an Envoy running on its machine, and limits packets in its kernel where it has an interface to guard. Requests are served and limited without it, too.
          </Empty>
        </div>
      )}
      <Stack gap="lg">
        {list.data?.items.map((n) => (
          <section key={n.id} className="card" style={{ padding: 20 }} aria-labelledby={`node-${n.id}`}>
            <Group justify="space-between" mb="sm" align="flex-start">
              <div style={{ minWidth: 0 }}>
                <Title order={2} id={`node-${n.id}`} style={{ overflowWrap: "anywhere" }}>{n.id}</Title>
                <Text size="sm" className="muted">
                  {n.interface ? `${n.interface}: ${n.mode ? (modes[n.mode] ?? n.mode) : "nothing is enforced"}` : "no interface to guard"}
                  {n.proxy && <> · Envoy <Link className="link" to="/envoys" search={{ id: n.proxy }}>{n.proxy}</Link></>}
                </Text>
              </div>
              <Group gap="xs">
                {Object.entries(n.labels ?? {}).map(([k, v]) => <Pill key={k} tone="idle">{k}={v}</Pill>)}
                {!n.connected ? <Pill tone="idle">Silent</Pill> : n.reason ? <Pill tone="bad">Not enforcing</Pill> : <Pill tone="ok">Reports</Pill>}
                <Text size="sm" className="muted"><Age at={n.at} /></Text>
              </Group>
            </Group>
            <Stack gap="sm">
              {n.reason && <Note tone="bad">{n.reason}</Note>}
              {n.warnings?.map((w) => <Note key={w} tone="warn">{w}</Note>)}
              {n.interface && (
                <SimpleGrid cols={{ base: 1, md: 3 }} spacing="lg">
                  <Counters title="Dropped" of={reasons(n.dropped)} total={sum(n.dropped)} />
                  <Counters title="Let through" of={reasons(n.passed)} total={sum(n.passed)} />
                  <div>
                    <Text size="sm" fw={600}>Sources that lost most</Text>
                    {n.sources?.length ? (
                      <Table verticalSpacing={4} horizontalSpacing={0}>
                        <Table.Tbody>
                          {n.sources.slice(0, 8).map((s) => (
                            <Table.Tr key={s.address}><Table.Td className="mono">{s.address}</Table.Td><Table.Td ta="right">{s.limited.toLocaleString("en")}</Table.Td></Table.Tr>
                          ))}
                        </Table.Tbody>
                      </Table>
                    ) : <Text size="sm" className="muted">none is above a limit</Text>}
                  </div>
                </SimpleGrid>
              )}
              {!!n.policies?.length && (
                <Text size="sm">
                  Enforces {n.policies.map((p, i) => <span key={p}>{i > 0 && ", "}<Link className="link" to="/$kind/$name" params={{ kind: "rate-limit-policies", name: p }}>{p}</Link></span>)}
                </Text>
              )}
            </Stack>
          </section>
        ))}
      </Stack>
    </>
  );
}

function Counters({ title, of, total }: { title: string; of: [string, number][]; total: number }) {
  return (
    <div>
      <Text size="sm" fw={600}>{title}</Text>
      <div className="tile-number" style={{ fontSize: "1.4rem" }}>{total.toLocaleString("en")}</div>
      <Text size="xs" className="muted" mb={4}>packets</Text>
      {of.filter(([, n]) => n > 0).slice(0, 6).map(([k, n]) => (
        <Group key={k} justify="space-between" gap="xs"><Text size="sm">{k.replace(/_/g, " ")}</Text><Text size="sm">{n.toLocaleString("en")}</Text></Group>
      ))}
    </div>
  );
}
