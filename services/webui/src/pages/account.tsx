import { Button, Group, NumberInput, PasswordInput, Stack, Table, Text, TextInput, Title, VisuallyHidden } from "@mantine/core";
import { IconDeviceDesktop, IconKey, IconPlus } from "@tabler/icons-react";
import { useQuery, useQueryClient } from "@tanstack/react-query";
import { useState, type FormEvent, type ReactNode } from "react";
import { client, take, type Session, type TokenBounds } from "~/api/client";
import { sessionQuery } from "~/session";
import { Age, Empty, ErrorNote, Loading, Note, PageHead, Pill, useTitle } from "~/ui/bits";
import { Ask, boundsOf, Scope, sent } from "./users";

export function AccountPage() {
  useTitle("Your account");
  const me = useQuery(sessionQuery).data;
  if (!me) return <Loading />;
  if (!me.user) return <Note tone="info" title="A token has no account">You are signed in with the token {me.name}. Sign in as a user to have a password, sessions and tokens of your own.</Note>;
  return (
    <>
      <PageHead title="Your account">{me.name}, role {me.role}{boundsOf(me.bounds) && `, bound to ${boundsOf(me.bounds)}`}</PageHead>
      <Stack gap="lg">
        <Password me={me} />
        <Sessions />
        <Tokens me={me} />
      </Stack>
    </>
  );
}

const Section = ({ id, title, children, action }: { id: string; title: string; children: ReactNode; action?: ReactNode }) => (
  <section className="card" style={{ padding: 20 }} aria-labelledby={id}>
    <div className="section-head">
      <Title order={2} id={id}>{title}</Title>
      {action}
    </div>
    {children}
  </section>
);

function Password({ me }: { me: Session }) {
  const cache = useQueryClient();
  const [current, setCurrent] = useState("");
  const [password, setPassword] = useState("");
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<unknown>();
  const [done, setDone] = useState(false);
  if (!me.password) return <Section id="password" title="Password"><Text size="sm">You sign in by a provider, and have no password here.</Text></Section>;
  const submit = async (e: FormEvent) => {
    e.preventDefault();
    setBusy(true);
    setError(undefined);
    setDone(false);
    try {
      await take(client.POST("/v1/account/password", { body: { current, password } }));
      setCurrent("");
      setPassword("");
      setDone(true);
      await cache.invalidateQueries({ queryKey: ["own sessions"] });
    } catch (e) {
      setError(e);
    }
    setBusy(false);
  };
  return (
    <Section id="password" title="Password">
      <form onSubmit={(e) => void submit(e)}>
        <Stack gap="md" maw={460}>
          {error !== undefined && <ErrorNote error={error} />}
          {done && <Note tone="ok" title="You have another password">All other browsers are signed out. Your tokens go on.</Note>}
          <input type="text" name="user" autoComplete="username" value={me.name} readOnly hidden />
          <PasswordInput label="Present password" value={current} onChange={(e) => setCurrent(e.currentTarget.value)} autoComplete="current-password" required withAsterisk={false} />
          <PasswordInput label="New password" description="12 characters or more" value={password} onChange={(e) => setPassword(e.currentTarget.value)} autoComplete="new-password" required withAsterisk={false} />
          <Group><Button type="submit" loading={busy} disabled={!current || !password}>Change the password</Button></Group>
        </Stack>
      </form>
    </Section>
  );
}

function Sessions() {
  const cache = useQueryClient();
  const list = useQuery({ queryKey: ["own sessions"], queryFn: () => take(client.GET("/v1/account/sessions")) });
  const [error, setError] = useState<unknown>();
  const end = async (id: string) => {
    setError(undefined);
    try {
      await take(client.DELETE("/v1/account/sessions/{session}", { params: { path: { session: id } } }));
    } catch (e) {
      setError(e);
    }
    await cache.invalidateQueries({ queryKey: ["own sessions"] });
  };
  return (
    <Section id="sessions" title="Where you are signed in">
      {(list.error ?? error) != null && <ErrorNote error={list.error ?? error} />}
      {list.isPending && <Loading rows={2} />}
      <Table.ScrollContainer minWidth={520} scrollAreaProps={{ viewportProps: { tabIndex: 0 } }}>
        <Table aria-label="Sessions">
          <Table.Thead><Table.Tr><Table.Th>Browser</Table.Th><Table.Th>Address</Table.Th><Table.Th>Since</Table.Th><Table.Th>Ends</Table.Th><Table.Th><VisuallyHidden>Actions</VisuallyHidden></Table.Th></Table.Tr></Table.Thead>
          <Table.Tbody>
            {list.data?.items.map((s) => (
              <Table.Tr key={s.id}>
                <Table.Td title={s.agent}><Group gap={8} wrap="nowrap"><IconDeviceDesktop size={16} aria-hidden />{browser(s.agent)}</Group></Table.Td>
                <Table.Td className="mono">{s.address}</Table.Td>
                <Table.Td><Age at={s.created_at} /></Table.Td>
                <Table.Td><Age at={s.expires_at} /></Table.Td>
                <Table.Td ta="right">{s.current ? <Pill tone="ok">This one</Pill> : <Button size="xs" variant="default" onClick={() => void end(s.id)}>Sign out</Button>}</Table.Td>
              </Table.Tr>
            ))}
          </Table.Tbody>
        </Table>
      </Table.ScrollContainer>
    </Section>
  );
}

/** A browser by the name that people know. */
function browser(agent = "") {
  for (const [word, name] of [["Edg/", "Edge"], ["OPR/", "Opera"], ["Firefox/", "Firefox"], ["Chrome/", "Chrome"], ["Safari/", "Safari"]] as const)
    if (agent.includes(word)) return name;
  return agent.split(/[ /]/)[0] || "unknown";
}

function Tokens({ me }: { me: Session }) {
  const cache = useQueryClient();
  const list = useQuery({ queryKey: ["own tokens"], queryFn: () => take(client.GET("/v1/account/tokens")) });
  const again = () => cache.invalidateQueries({ queryKey: ["own tokens"] });
  const [making, setMaking] = useState(false);
  const [ending, setEnding] = useState<string>();
  const [made, setMade] = useState<{ name: string; token: string }>();
  return (
    <Section id="tokens" title="Your tokens" action={<Button size="xs" leftSection={<IconPlus size={14} />} onClick={() => setMaking(true)}>New token</Button>}>
      <Stack gap="md">
        <Text size="sm" className="muted">For programs that act for you. None does more than you may at that moment, and all are gone when you are.</Text>
        {made && (
          <Note tone="ok" title={`The token ${made.name}, shown this once`} action={<Button size="xs" variant="default" onClick={() => void navigator.clipboard.writeText(made.token)}>Copy</Button>}>
            <Text className="mono" style={{ overflowWrap: "anywhere" }}>{made.token}</Text>
          </Note>
        )}
        {list.isError && <ErrorNote error={list.error} />}
        {list.isPending && <Loading rows={2} />}
        {list.data?.items.length === 0 && <Empty small icon={<IconKey size={30} stroke={1.3} />} title="You have no tokens" />}
        {list.data && list.data.items.length > 0 && (
          <Table.ScrollContainer minWidth={520} scrollAreaProps={{ viewportProps: { tabIndex: 0 } }}>
            <Table aria-label="Tokens">
              <Table.Thead><Table.Tr><Table.Th>Name</Table.Th><Table.Th>Role</Table.Th><Table.Th>Bound to</Table.Th><Table.Th>Last used</Table.Th><Table.Th>Ends</Table.Th><Table.Th><VisuallyHidden>Actions</VisuallyHidden></Table.Th></Table.Tr></Table.Thead>
              <Table.Tbody>
                {list.data.items.map((t) => (
                  <Table.Tr key={t.id}>
                    <Table.Td fw={600}>{t.name}</Table.Td>
                    <Table.Td>{t.role}</Table.Td>
                    <Table.Td>{boundsOf(t.bounds) || <span className="muted">–</span>}</Table.Td>
                    <Table.Td>{t.last_used_at ? <Age at={t.last_used_at} /> : <span className="muted">never</span>}</Table.Td>
                    <Table.Td><Age at={t.expires_at} /></Table.Td>
                    <Table.Td ta="right"><Button size="xs" variant="default" onClick={() => setEnding(t.name)}>Delete</Button></Table.Td>
                  </Table.Tr>
                ))}
              </Table.Tbody>
            </Table>
          </Table.ScrollContainer>
        )}
      </Stack>
      {making && <NewToken me={me} onClose={() => setMaking(false)} onMade={async (t) => { setMade(t); await again(); }} />}
      {ending !== undefined && (
        <Ask title={`Delete the token ${ending}?`} action="Delete" danger onClose={() => setEnding(undefined)} onDone={async () => {
          await take(client.DELETE("/v1/account/tokens/{name}", { params: { path: { name: ending } } }));
          setMade((m) => (m?.name === ending ? undefined : m));
          await again();
        }}>
          <Text size="sm">What uses it is refused from then on.</Text>
        </Ask>
      )}
    </Section>
  );
}

function NewToken({ me, onClose, onMade }: { me: Session; onClose: () => void; onMade: (t: { name: string; token: string }) => Promise<unknown> }) {
  const [name, setName] = useState("");
  const [role, setRole] = useState(me.role === "admin" ? "operator" : me.role);
  const [bounds, setBounds] = useState<Partial<TokenBounds>>(me.bounds ?? {});
  const [days, setDays] = useState<number | string>(90);
  return (
    <Ask title="New token" action="Make the token" ready={name !== "" && Number(days) > 0} onClose={onClose} onDone={async () => {
      const expires_at = new Date(Date.now() + Number(days) * 86_400_000).toISOString();
      const t = await take(client.POST("/v1/account/tokens", { body: { name: name.trim(), role, expires_at, bounds: sent(role, bounds) } as never }));
      await onMade({ name: t.name, token: t.token });
    }}>
      <TextInput label="Name" description="What uses it, such as ci" value={name} onChange={(e) => setName(e.currentTarget.value)} autoComplete="off" autoCapitalize="none" spellCheck={false} required withAsterisk={false} data-autofocus />
      <NumberInput label="Days until it ends" value={days} onChange={setDays} min={1} max={365} allowDecimal={false} />
      <Scope role={role} setRole={setRole} bounds={bounds} setBounds={setBounds} most={me.role} />
    </Ask>
  );
}
