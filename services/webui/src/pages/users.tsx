import { ActionIcon, Button, Checkbox, Group, Menu, Modal, PasswordInput, Select, SimpleGrid, Stack, TagsInput, Text, TextInput } from "@mantine/core";
import { IconDots, IconPlus, IconUsers } from "@tabler/icons-react";
import { useQuery, useQueryClient } from "@tanstack/react-query";
import { useState, type FormEvent, type ReactNode } from "react";
import { client, take, type TokenBounds, type User } from "~/api/client";
import { sessionQuery } from "~/session";
import { Age, Empty, ErrorNote, Loading, Note, PageHead, Pill, useTitle } from "~/ui/bits";
import { DataTable, type Column } from "~/ui/table";

export const roles = [
  { value: "viewer", label: "viewer: reads" },
  { value: "editor", label: "editor: routes and services" },
  { value: "operator", label: "operator: all of the configuration" },
  { value: "admin", label: "admin: tokens and users as well" },
];
const sorts = [
  ["owners", "Owners"],
  ["gateways", "Gateways"],
  ["kinds", "Kinds"],
  ["hosts", "Hosts"],
] as const;
export const boundsOf = (b: Partial<TokenBounds> | undefined) =>
  sorts.flatMap(([k, label]) => (b?.[k]?.length ? [`${label.toLowerCase()} ${b[k].join(", ")}`] : [])).join("; ");

const usersQuery = { queryKey: ["users"], queryFn: () => take(client.GET("/v1/users")) };
type Dialog = { what: "new" } | { what: "scope" | "password" | "disable" | "delete"; user: User };

/** What the pages of users and of one's account ask before they do something. */
export function Ask({ title, action, danger, children, onClose, onDone, ready = true }: { title: string; action: string; danger?: boolean; children?: ReactNode; onClose: () => void; onDone: () => Promise<unknown>; ready?: boolean }) {
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<unknown>();
  const submit = async (e: FormEvent) => {
    e.preventDefault();
    setBusy(true);
    setError(undefined);
    try {
      await onDone();
      onClose();
    } catch (e) {
      setError(e);
      setBusy(false);
    }
  };
  return (
    <Modal opened onClose={onClose} title={<Text fw={650} component="span">{title}</Text>} size="lg" closeButtonProps={{ "aria-label": "Close" }}>
      <form onSubmit={(e) => void submit(e)}>
        <Stack gap="md">
          {error !== undefined && <ErrorNote error={error} />}
          {children}
          <Group justify="flex-end">
            <Button variant="default" onClick={onClose}>Cancel</Button>
            <Button type="submit" loading={busy} disabled={!ready} {...(danger && { color: "red.9" })}>{action}</Button>
          </Group>
        </Stack>
      </form>
    </Modal>
  );
}

export function Scope({ role, setRole, bounds, setBounds, most = "admin" }: { role: string; setRole: (r: string) => void; bounds: Partial<TokenBounds>; setBounds: (b: Partial<TokenBounds>) => void; most?: string }) {
  const upTo = roles.findIndex((r) => r.value === most);
  return (
    <>
      <Select label="Role" data={roles.slice(0, upTo + 1)} value={role} onChange={(v) => v && setRole(v)} allowDeselect={false} required withAsterisk={false} />
      {role !== "admin" && (
        <SimpleGrid cols={{ base: 1, sm: 2 }}>
          {sorts.map(([k, label]) => (
            <TagsInput key={k} label={label} description={`${role === "viewer" ? "Watches the access log" : "Writes, and watches the access log,"} only of these; of all where empty`} value={bounds[k] ?? []} onChange={(v) => setBounds({ ...bounds, [k]: v })} />
          ))}
        </SimpleGrid>
      )}
    </>
  );
}
/** Bounds as they are sent: none for a role that has none, and no empty lists. */
export const sent = (role: string, b: Partial<TokenBounds>) =>
  role !== "admin" ? Object.fromEntries(Object.entries(b).filter(([, v]) => v.length)) : {};

export function Users() {
  useTitle("Users");
  const cache = useQueryClient();
  const list = useQuery(usersQuery);
  const me = useQuery(sessionQuery).data;
  const [dialog, setDialog] = useState<Dialog>();
  const close = () => setDialog(undefined);
  const again = () => cache.invalidateQueries({ queryKey: ["users"] });
  const patch = async (name: string, body: object) => {
    await take(client.PATCH("/v1/users/{user}", { params: { path: { user: name } }, body }));
    await again();
  };
  const columns: Column<User>[] = [
    { id: "name", head: "Name", width: "minmax(160px, 1.6fr)", phone: "title", cell: (u) => <span title={u.name}>{u.name}{me?.user && me.name === u.name && <span className="muted"> (you)</span>}</span> },
    { id: "state", head: "State", width: "minmax(110px, .7fr)", phone: "side", cell: (u) => (u.disabled ? <Pill tone="idle">Disabled</Pill> : u.role ? <Pill tone="ok">Enabled</Pill> : <Pill tone="warn" title="None of the user's groups at the provider has a role here.">No role</Pill>) },
    { id: "role", head: "Role", width: "minmax(100px, .7fr)", phone: "line", cell: (u) => u.role || <span className="muted">none</span> },
    { id: "bounds", head: "Bound to", width: "minmax(140px, 1.4fr)", wide: true, cell: (u) => boundsOf(u.bounds) || <span className="muted">–</span> },
    { id: "from", head: "Signs in by", width: "minmax(110px, 1fr)", wide: true, cell: (u) => (u.issuer ? <span title={u.issuer}>{new URL(u.issuer).host}</span> : "password") },
    { id: "seen", head: "Signed in", width: "minmax(110px, .8fr)", phone: "line", cell: (u) => (u.signed_in_at ? <Age at={u.signed_in_at} /> : <span className="muted">never</span>) },
    { id: "open", head: "Sessions, tokens", width: "minmax(120px, .7fr)", wide: true, cell: (u) => `${u.sessions ?? 0}, ${u.tokens ?? 0}` },
    {
      id: "do", head: "Change", width: "96px", phone: "side",
      cell: (u) => (
        <Menu position="bottom-end" width={220} withinPortal>
          <Menu.Target><ActionIcon aria-label={`Change ${u.name}`}><IconDots size={18} /></ActionIcon></Menu.Target>
          <Menu.Dropdown>
            {!u.issuer && <Menu.Item onClick={() => setDialog({ what: "scope", user: u })}>Role and bounds</Menu.Item>}
            {!u.issuer && <Menu.Item onClick={() => setDialog({ what: "password", user: u })}>Another password</Menu.Item>}
            <Menu.Item onClick={() => setDialog({ what: "disable", user: u })}>{u.disabled ? "Enable" : "Disable"}</Menu.Item>
            <Menu.Item onClick={() => setDialog({ what: "delete", user: u })}>Delete</Menu.Item>
          </Menu.Dropdown>
        </Menu>
      ),
    },
  ];
  if (me && me.role !== "admin") return <Note tone="warn" title="Users are for admins">Your role is {me.role}.</Note>;
  return (
    <>
      <PageHead title="Users" actions={<Button leftSection={<IconPlus size={16} />} onClick={() => setDialog({ what: "new" })}>New user</Button>}>
        People who sign in, and what they may do. What you change holds from their next request on.
      </PageHead>
      {list.isError && <ErrorNote error={list.error} retry={() => void list.refetch()} />}
      {list.isPending && <div className="card"><Loading /></div>}
      {list.data && (
        <DataTable label="Users" rows={list.data.items} columns={columns} rowKey={(u) => u.name} around={250}
          empty={<Empty icon={<IconUsers size={38} stroke={1.3} />} title="There are no users yet">Until there is one, people sign in with a token. Make the first one with the role admin; then the bootstrap token can go.</Empty>} />
      )}
      {dialog?.what === "new" && <NewUser first={list.data?.items.length === 0} onClose={close} onDone={again} />}
      {dialog?.what === "scope" && <ChangeScope user={dialog.user} onClose={close} onDone={(body) => patch(dialog.user.name, body)} />}
      {dialog?.what === "password" && <ChangePassword user={dialog.user} onClose={close} onDone={(password) => patch(dialog.user.name, { password })} />}
      {dialog?.what === "disable" && (
        <Ask title={`${dialog.user.disabled ? "Enable" : "Disable"} ${dialog.user.name}?`} action={dialog.user.disabled ? "Enable" : "Disable"} danger={!dialog.user.disabled} onClose={close} onDone={() => patch(dialog.user.name, { disabled: !dialog.user.disabled })}>
          <Text size="sm">{dialog.user.disabled ? "The user can sign in again, and own tokens open what they did." : "All sessions end at once, and own tokens open nothing until the user is enabled again."}</Text>
        </Ask>
      )}
      {dialog?.what === "delete" && (
        <Ask title={`Delete ${dialog.user.name}?`} action="Delete" danger onClose={close} onDone={async () => {
          await take(client.DELETE("/v1/users/{user}", { params: { path: { user: dialog.user.name } } }));
          await again();
        }}>
          <Text size="sm">All sessions and own tokens are gone with the user. What was written stays, and the audit goes on to name who wrote it.</Text>
        </Ask>
      )}
    </>
  );
}

const passwordHint = "12 characters or more; four words that have nothing to do with each other are good";

function NewUser({ first, onClose, onDone }: { first: boolean; onClose: () => void; onDone: () => Promise<unknown> }) {
  const [name, setName] = useState("");
  const [password, setPassword] = useState("");
  const [role, setRole] = useState(first ? "admin" : "viewer");
  const [bounds, setBounds] = useState<Partial<TokenBounds>>({});
  return (
    <Ask title="New user" action="Make the user" ready={name !== "" && password !== ""} onClose={onClose} onDone={async () => {
      await take(client.POST("/v1/users", { body: { name: name.trim(), password, role, bounds: sent(role, bounds) } }));
      await onDone();
    }}>
      <TextInput label="Name" value={name} onChange={(e) => setName(e.currentTarget.value)} autoComplete="off" autoCapitalize="none" spellCheck={false} required withAsterisk={false} data-autofocus />
      <PasswordInput label="Password" description={passwordHint} value={password} onChange={(e) => setPassword(e.currentTarget.value)} autoComplete="new-password" required withAsterisk={false} />
      <Scope role={role} setRole={setRole} bounds={bounds} setBounds={setBounds} />
    </Ask>
  );
}

function ChangeScope({ user, onClose, onDone }: { user: User; onClose: () => void; onDone: (body: object) => Promise<unknown> }) {
  const [role, setRole] = useState(user.role);
  const [bounds, setBounds] = useState<Partial<TokenBounds>>(user.bounds ?? {});
  return (
    <Ask title={`Role and bounds of ${user.name}`} action="Save" onClose={onClose} onDone={() => onDone({ role, bounds: sent(role, bounds) })}>
      <Scope role={role} setRole={setRole} bounds={bounds} setBounds={setBounds} />
    </Ask>
  );
}

function ChangePassword({ user, onClose, onDone }: { user: User; onClose: () => void; onDone: (password: string) => Promise<unknown> }) {
  const [password, setPassword] = useState("");
  const [sure, setSure] = useState(false);
  return (
    <Ask title={`Another password for ${user.name}`} action="Save" ready={password !== "" && sure} onClose={onClose} onDone={() => onDone(password)}>
      <PasswordInput label="Password" description={passwordHint} value={password} onChange={(e) => setPassword(e.currentTarget.value)} autoComplete="new-password" required withAsterisk={false} data-autofocus />
      <Checkbox label="End all sessions of the user" checked={sure} onChange={(e) => setSure(e.currentTarget.checked)} />
    </Ask>
  );
}
