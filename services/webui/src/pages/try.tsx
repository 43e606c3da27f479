import { ActionIcon, Autocomplete, Button, Group, Select, SimpleGrid, Stack, Text, TextInput, Title } from "@mantine/core";
import { IconArrowRight, IconPlus, IconRoute2, IconX } from "@tabler/icons-react";
import { useQuery, useQueryClient } from "@tanstack/react-query";
import { Link, useNavigate, useSearch } from "@tanstack/react-router";
import { useEffect, useMemo, useState, type FormEvent, type ReactNode } from "react";
import { ApiError, client, take, type Explanation } from "~/api/client";
import { hostsOf } from "~/kinds";
import { Empty, ErrorNote, Loading, PageHead, Pill, useTitle, type Tone } from "~/ui/bits";
import { wholeList } from "./list";

type Header = { name: string; value: string };
type Asked = { gateway: string; listener: string; scheme: "" | "http" | "https"; method: string; host: string; path: string; source: string; headers: Header[] };

const outcomes: Record<string, [Tone, string]> = { forwarded: ["ok", "Goes to a service"], redirected: ["info", "Is redirected"], answered: ["info", "Answered by Envoy"], refused: ["bad", "Is refused"] };
const stepNames: Record<string, string> = { listener: "Listener", connection: "Connection", path: "Path", host: "Host", route: "Route", cors: "CORS", limits: "Limits", license: "License", auth: "Who may pass", answer: "Answer" };
const methods = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/** What an Envoy would do with a request, without sending one. */
export function TryPage() {
  useTitle("Try a request");
  const cache = useQueryClient();
  const search = useSearch({ from: "/try" });
  const navigate = useNavigate({ from: "/try" });
  const stored = useQuery(wholeList(cache, "gateways")).data?.items;
  const gateways = stored?.map((g) => g.name) ?? ["default"];
  const routes = useQuery(wholeList(cache, "routes")).data?.items;
  const hosts = useMemo(() => [...new Set((routes ?? []).flatMap(hostsOf))].filter((h) => !h.startsWith("*")).slice(0, 2000), [routes]);
  // All of it is in the page's address but the values of headers, and of a query: one of them may be a token.
  const [asked, setAsked] = useState<Asked>(() => ({
    gateway: search.gateway ?? "default",
    listener: search.listener ?? "",
    scheme: search.scheme === "http" || search.scheme === "https" ? search.scheme : "",
    method: search.method ?? "GET",
    host: search.host ?? "",
    path: search.path ?? "/",
    source: search.source ?? "",
    headers: (search.headers ?? "").split(",").filter(Boolean).map((name) => ({ name, value: "" })),
  }));
  const [answer, setAnswer] = useState<Explanation>();
  const [error, setError] = useState<unknown>();
  const [busy, setBusy] = useState(false);
  const listeners = useMemo(() => {
    const all = stored?.find((g) => g.name === asked.gateway)?.spec["listeners"];
    return Array.isArray(all) ? all.map((l) => (l as { name: string }).name) : [];
  }, [stored, asked.gateway]);
  const set = (change: Partial<Asked>) => setAsked((a) => ({ ...a, ...change }));
  const header = (i: number, change: Partial<Header>) => set({ headers: asked.headers.map((h, j) => (j === i ? { ...h, ...change } : h)) });

  const ask = async () => {
    setBusy(true);
    setError(undefined);
    const { gateway, listener, scheme, method, host, source } = asked;
    const path = asked.path || "/";
    const headers = asked.headers.filter((h) => h.name !== "");
    const bare = path.replace(/\?.*/, "");
    void navigate({
      search: {
        gateway: gateway === "default" ? undefined : gateway,
        listener: listener || undefined,
        scheme: scheme || undefined,
        method: method === "GET" ? undefined : method,
        host,
        path: bare === "/" ? undefined : bare,
        source: source || undefined,
        headers: headers.map((h) => h.name).join(",") || undefined,
      },
      replace: true,
    });
    try {
      setAnswer(await take(client.POST("/v1/explain", { body: { gateway, method, host, path, scheme, ...(listener && { listener }), ...(source && { source }), ...(headers.length && { headers }) } })));
    } catch (e) {
      setAnswer(undefined);
      setError(e);
    }
    setBusy(false);
  };
  useEffect(() => {
    if (search.host && !search.headers) void ask();
    // Once: what a link asks for is shown when it is opened, where it lacks nothing.
  }, []);
  const wrong = (path: string) => (error instanceof ApiError ? error.errors.find((e) => e.path === path)?.message : undefined);

  return (
    <>
      <PageHead title="Try a request">What an Envoy would do with a request, and why. Nothing is sent to one, and nothing of the request is kept.</PageHead>
      <SimpleGrid cols={{ base: 1, lg: 2 }} spacing="lg">
        <form
          className="card"
          style={{ padding: 20, alignSelf: "start" }}
          onSubmit={(e: FormEvent) => {
            e.preventDefault();
            void ask();
          }}
        >
          <Stack gap="md">
            <Group gap="sm" align="flex-start">
              <Select label="Method" data={methods} value={asked.method} onChange={(v) => set({ method: v ?? "GET" })} allowDeselect={false} w={120} error={wrong("$.method")} />
              <Autocomplete label="Host" placeholder="shop.example.com" data={hosts} limit={20} value={asked.host} onChange={(host) => set({ host })} required withAsterisk={false} style={{ flex: "1 1 200px" }} error={wrong("$.host")} />
            </Group>
            <TextInput label="Path" value={asked.path} onChange={(e) => set({ path: e.currentTarget.value })} error={wrong("$.path")} styles={{ input: { fontFamily: "var(--mantine-font-family-monospace)" } }} />
            <Group gap="sm" align="flex-start">
              <Select label="Gateway" data={gateways} value={asked.gateway} onChange={(v) => set({ gateway: v ?? "default", listener: "" })} allowDeselect={false} searchable style={{ flex: "1 1 140px" }} error={wrong("$.gateway")} />
              <Select label="Scheme" placeholder="the listener's" data={["http", "https"]} value={asked.scheme || null} onChange={(v) => set({ scheme: (v ?? "") as Asked["scheme"] })} clearable style={{ flex: "1 1 140px" }} error={wrong("$.scheme")} />
            </Group>
            <Group gap="sm" align="flex-start">
              <Select label="Listener" placeholder="by scheme and port" data={listeners} value={asked.listener || null} onChange={(v) => set({ listener: v ?? "" })} clearable style={{ flex: "1 1 140px" }} error={wrong("$.listener")} />
              <TextInput label="Client's address" placeholder="203.0.113.7" value={asked.source} onChange={(e) => set({ source: e.currentTarget.value })} style={{ flex: "1 1 140px" }} error={wrong("$.source")} />
            </Group>
            <div>
              <Text size="sm" fw={600} mb={6}>Headers</Text>
              <Stack gap={6}>
                {asked.headers.map((h, i) => (
                  <Group key={i} gap="xs" wrap="nowrap" align="flex-start">
                    <TextInput aria-label={`Name of header ${i + 1}`} placeholder="authorization" value={h.name} onChange={(e) => header(i, { name: e.currentTarget.value })} error={wrong(`$.headers[${i}].name`)} style={{ flex: 1 }} />
                    <TextInput aria-label={`Value of header ${i + 1}`} value={h.value} onChange={(e) => header(i, { value: e.currentTarget.value })} error={wrong(`$.headers[${i}].value`)} style={{ flex: 1.5 }} autoComplete="off" />
                    <ActionIcon aria-label={`Remove header ${i + 1}`} mt={4} onClick={() => set({ headers: asked.headers.filter((_, j) => j !== i) })}>
                      <IconX size={16} />
                    </ActionIcon>
                  </Group>
                ))}
                <div>
                  <Button variant="default" size="xs" leftSection={<IconPlus size={14} />} onClick={() => set({ headers: [...asked.headers, { name: "", value: "" }] })}>
                    Add a header
                  </Button>
                </div>
              </Stack>
            </div>
            <Group justify="flex-end">
              <Button type="submit" loading={busy} disabled={!asked.host}>
                Try it
              </Button>
            </Group>
          </Stack>
        </form>
        <section aria-label="What happens" aria-live="polite">
          {error !== undefined ? (
            <ErrorNote error={error} />
          ) : answer ? (
            <Answer answer={answer} />
          ) : busy ? (
            <div className="card"><Loading /></div>
          ) : (
            <div className="card">
              <Empty icon={<IconRoute2 size={38} stroke={1.3} />} title="Which way would it go?">
                Name a host and a path: here you see which route fits and which do not, who may pass, what is limited, and which service gets it.
              </Empty>
            </div>
          )}
        </section>
      </SimpleGrid>
    </>
  );
}

const per = (l: Explanation["limits"][number]) => `${l.requests.toLocaleString("en")} in ${l.per}${l.burst ? `, ${l.burst.toLocaleString("en")} at once` : ""}, of ${l.counted}`;

function Answer({ answer: a }: { answer: Explanation }) {
  const [tone, word] = outcomes[a.outcome] ?? ["info", a.outcome];
  const to = (kind: string, name: string) => <Link className="link" to="/$kind/$name" params={{ kind, name }}>{name}</Link>;
  const limited: Record<string, string> = { policy: "rate-limit-policies", route: "routes" };
  const facts: [string, ReactNode][] = [
    ["Listener", a.listener && <>{a.listener} of {to("gateways", a.gateway)}</>],
    ["Route", a.route && to("routes", a.route)],
    ["Who may pass", a.auth_policy && to("auth-policies", a.auth_policy)],
    ["License", a.license && to("licenses", a.license)],
    ["Limits", a.limits?.length ? a.limits.map((l) => <div key={l.kind + l.name}>{limited[l.kind] ? to(limited[l.kind]!, l.name) : `${l.kind} ${l.name}`}: {per(l)}</div>) : undefined],
    ["Sent to", a.location && <span className="mono">{a.location}</span>],
    ["Body", a.body && <span className="mono" style={{ whiteSpace: "pre-wrap" }}>{a.body}</span>],
    ["Not known here", a.provided],
  ];
  return (
    <Stack gap="lg">
      <div className="card" style={{ padding: 20 }}>
        <Stack gap="sm">
          <Group gap="sm">
            <Pill tone={tone}>{word}</Pill>
            {a.status > 0 && <Text fw={650} aria-label="Status">{a.status}</Text>}
            <Text size="sm" className="muted" ml="auto">as of revision {(a.revision ?? 0).toLocaleString("en")}</Text>
          </Group>
          <Text style={{ overflowWrap: "anywhere" }}>{a.summary}</Text>
          {a.services?.map((s) => (
            <Group key={s.name} gap="xs" wrap="nowrap" align="baseline">
              <IconArrowRight size={14} aria-hidden style={{ flex: "none" }} />
              <Text size="sm" style={{ minWidth: 0, overflowWrap: "anywhere" }}>
                {to("services", s.name)} {a.services.length > 1 && <b>{s.percent} %</b>} <span className="mono muted">{s.host}{s.path}</span>
              </Text>
            </Group>
          ))}
          <dl className="facts">
            {facts.filter(([, v]) => v).map(([k, v]) => (
              <div key={k}>
                <dt>{k}</dt>
                <dd>{v}</dd>
              </div>
            ))}
          </dl>
        </Stack>
      </div>
      <section aria-labelledby="steps">
        <div className="section-head"><Title order={2} id="steps">Step by step</Title></div>
        <dl className="card rows steps">
          {a.steps?.map((s, i) => (
            <div key={i}>
              <dt>{stepNames[s.step] ?? s.step}</dt>
              <dd>{s.says}</dd>
            </div>
          ))}
        </dl>
      </section>
      {!!a.candidates?.length && (
        <section aria-labelledby="candidates">
          <div className="section-head"><Title order={2} id="candidates">The routes of {a.host || "the host"}, as they are tried</Title></div>
          <ol className="card rows tries">
            {a.candidates.map((c) => (
              <li key={c.route}>
                <div><Pill tone={c.matches ? "ok" : "idle"}>{c.matches ? "Fits" : "No"}</Pill></div>
                <Text size="sm" component="div" style={{ minWidth: 0, overflowWrap: "anywhere" }}>{to("routes", c.route)} {c.reason && <span className="muted">{c.reason}</span>}</Text>
              </li>
            ))}
            {a.more > 0 && <li><Text size="sm" className="muted">and {a.more.toLocaleString("en")} more</Text></li>}
          </ol>
        </section>
      )}
    </Stack>
  );
}
