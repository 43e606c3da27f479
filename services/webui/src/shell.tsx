import { ActionIcon, AppShell, Burger, Button, Center, Group, Loader, Menu, Text, Tooltip, UnstyledButton, useComputedColorScheme, useMantineColorScheme } from "@mantine/core";
import { useDisclosure } from "@mantine/hooks";
import {
  IconActivity,
  IconBook,
  IconChevronDown,
  IconClipboardList,
  IconGitBranch,
  IconHistory,
  IconLayoutDashboard,
  IconLogout,
  IconMoon,
  IconRoute2,
  IconServerBolt,
  IconSun,
  IconUser,
  IconUsers,
  IconWaveSawTool,
} from "@tabler/icons-react";
import { useQuery } from "@tanstack/react-query";
import { Link, useRouterState } from "@tanstack/react-router";
import { useEffect, type ReactNode } from "react";
import { client, take, type Session } from "~/api/client";
import { useFollow, useLive } from "~/api/live";
import { modelQuery } from "~/api/model";
import { aboutOf, NodeIcon } from "~/kinds";
import { Logo, sessionQuery, SignIn, signOut } from "~/session";
import { Empty, ErrorNote, LostIcon, Note, Pill } from "~/ui/bits";

export const statusQuery = {
  queryKey: ["status"],
  queryFn: () => take(client.GET("/v1/status")),
};

export function Shell({ children }: { children: ReactNode }) {
  const session = useQuery(sessionQuery);
  if (session.isPending)
    return (
      <Center h="100dvh">
        <Loader aria-label="Loading" />
      </Center>
    );
  if (session.isError && session.data === undefined)
    return (
      <Center h="100dvh" p="md">
        <div style={{ width: "min(560px, 100%)" }}>
          <ErrorNote error={session.error} retry={() => void session.refetch()} />
        </div>
      </Center>
    );
  if (!session.data) return <SignIn />;
  return <Frame who={session.data}>{children}</Frame>;
}

function Frame({ who, children }: { who: Session; children: ReactNode }) {
  useFollow(true);
  const [open, { toggle, close }] = useDisclosure();
  const path = useRouterState({ select: (s) => s.location.pathname });
  useEffect(close, [close, path]);
  return (
    <AppShell header={{ height: 56 }} navbar={{ width: 248, breakpoint: "sm", collapsed: { mobile: !open } }} padding={{ base: "md", sm: "xl" }}>
      <a className="skip" href="#main">
        Skip to the content
      </a>
      <AppShell.Header className="shell-header">
        <Group h="100%" px="md" justify="space-between" wrap="nowrap" gap="sm">
          <Group gap="sm" wrap="nowrap">
            <Burger opened={open} onClick={toggle} hiddenFrom="sm" size="sm" aria-label={open ? "Close the menu" : "Open the menu"} />
            <Link to="/" className="plain-link" aria-label="MarchProxy: to the overview">
              <Group gap={9} wrap="nowrap">
                <Logo size={26} />
                <Text fw={700} visibleFrom="xs">
                  MarchProxy
                </Text>
              </Group>
            </Link>
          </Group>
          <Group gap="xs" wrap="nowrap">
            <HeadState />
            <SchemeToggle />
            <Account who={who} />
          </Group>
        </Group>
      </AppShell.Header>
      <AppShell.Navbar className="shell-nav" p="xs" aria-label="Main">
        <Nav admin={who.role === "admin"} />
      </AppShell.Navbar>
      <AppShell.Main className="shell-main" id="main" tabIndex={-1}>
        <Connection />
        {children}
      </AppShell.Main>
    </AppShell>
  );
}

const NavLink = ({ to, params, icon, children, count }: { to: string; params?: Record<string, string>; icon: ReactNode; children: ReactNode; count?: number | undefined }) => (
  <Link to={to as "/"} params={params as never} className="nav-link" activeOptions={{ exact: to === "/", includeSearch: false }}>
    {icon}
    <span className="cut">{children}</span>
    {count !== undefined && <span className="count">{count.toLocaleString("en")}</span>}
  </Link>
);

function Nav({ admin }: { admin: boolean }) {
  const model = useQuery(modelQuery).data;
  const status = useQuery(statusQuery).data;
  const size = { size: 18, stroke: 1.7 };
  return (
    <div style={{ overflowY: "auto", display: "grid", gap: 2, alignContent: "start" }}>
      <NavLink to="/" icon={<IconLayoutDashboard {...size} />}>
        Overview
      </NavLink>
      {(["Traffic", "Edge"] as const).map((group) => (
        <div key={group} style={{ display: "grid", gap: 2 }}>
          <div className="nav-group">{group}</div>
          {model?.kinds
            .filter((k) => aboutOf(k.path).group === group)
            .map((k) => {
              const Icon = aboutOf(k.path).icon;
              return (
                <NavLink key={k.path} to="/$kind" params={{ kind: k.path }} icon={<Icon {...size} />} count={status ? (status.state?.[k.name]?.count ?? 0) : undefined}>
                  {k.plural}
                </NavLink>
              );
            })}
        </div>
      ))}
      <div className="nav-group">Tools</div>
      <NavLink to="/topology" icon={<IconGitBranch {...size} />}>
        Topology
      </NavLink>
      <NavLink to="/try" icon={<IconRoute2 {...size} />}>
        Try a request
      </NavLink>
      <NavLink to="/access-log" icon={<IconWaveSawTool {...size} />}>
        Access log
      </NavLink>
      <div className="nav-group">Operations</div>
      <NavLink to="/revisions" icon={<IconHistory {...size} />}>
        Revisions
      </NavLink>
      <NavLink to="/audit" icon={<IconClipboardList {...size} />}>
        Audit
      </NavLink>
      <NavLink to="/envoys" icon={<IconServerBolt {...size} />} count={status?.proxies}>
        Envoys
      </NavLink>
      <NavLink to="/nodes" icon={<NodeIcon {...size} />}>
        Nodes
      </NavLink>
      {admin && (
        <NavLink to="/users" icon={<IconUsers {...size} />}>
          Users
        </NavLink>
      )}
      <div className="nav-group">Help</div>
      <a className="nav-link" href="/docs/">
        <IconBook {...size} />
        <span className="cut">Documentation</span>
      </a>
    </div>
  );
}

/** How far the configuration is: what is stored, and what the Envoys serve. */
function HeadState() {
  const status = useQuery(statusQuery).data;
  const live = useLive();
  if (!status) return null;
  const head = Math.max(status.revision, live.head);
  const served = Math.max(status.live_revision, live.status?.live_revision ?? 0);
  const proxies = live.status?.proxies ?? status.proxies;
  const refused = live.status?.rejected_objects ?? status.rejected_objects ?? 0;
  if (refused > 0) return <Link to="/" className="plain-link"><Pill tone="bad">{refused} refused</Pill></Link>;
  if (proxies === 0) return <Pill tone="idle" title="No Envoy is connected: what is stored is served when one is.">No Envoy</Pill>;
  if (served >= head) return <Pill tone="ok" title="Every connected Envoy serves the last revision.">Live · {head}</Pill>;
  return <Pill tone="info" title="Some Envoys do not have the last revision yet.">{served} → {head}</Pill>;
}

function Connection() {
  const live = useLive();
  if (live.connection !== "lost") return null;
  return (
    <div style={{ marginBottom: 16 }}>
      <Note tone="warn" title="The connection to the API is lost" action={<LostIcon size={18} aria-hidden />}>
        <Text size="sm">What you see is as of {new Date(live.since).toLocaleTimeString()}. The page catches up by itself when the API answers again.</Text>
      </Note>
    </div>
  );
}

function SchemeToggle() {
  const { setColorScheme } = useMantineColorScheme();
  const scheme = useComputedColorScheme("light", { getInitialValueInEffect: false });
  const other = scheme === "dark" ? "light" : "dark";
  return (
    <Tooltip label={`Use the ${other} scheme`}>
      <ActionIcon size="lg" aria-label={`Use the ${other} scheme`} onClick={() => setColorScheme(other)}>
        {scheme === "dark" ? <IconSun size={18} /> : <IconMoon size={18} />}
      </ActionIcon>
    </Tooltip>
  );
}

function Account({ who: { name, role, user } }: { who: Session }) {
  return (
    <Menu position="bottom-end" width={220} shadow="md">
      <Menu.Target>
        <UnstyledButton aria-label={`Signed in as ${name}`} px={8} py={5} style={{ borderRadius: 8 }}>
          <Group gap={6} wrap="nowrap">
            <Text size="sm" fw={600} maw={140} truncate>
              {name}
            </Text>
            <IconChevronDown size={14} aria-hidden />
          </Group>
        </UnstyledButton>
      </Menu.Target>
      <Menu.Dropdown>
        <Menu.Label>
          {user ? "User" : "Token"} {name}, role {role}
        </Menu.Label>
        {user && (
          <Menu.Item leftSection={<IconUser size={16} />} component={Link} to="/account">
            Your account
          </Menu.Item>
        )}
        <Menu.Item leftSection={<IconActivity size={16} />} component="a" href="/docs/api.html" target="_blank" rel="noreferrer">
          API reference
        </Menu.Item>
        <Menu.Item leftSection={<IconLogout size={16} />} onClick={() => void signOut()}>
          Sign out
        </Menu.Item>
      </Menu.Dropdown>
    </Menu>
  );
}

export const NotFound = () => (
  <div className="card">
    <Empty title={<h1 className="plain">There is no such page</h1>} action={<Button component={Link} to="/" variant="default">Go to the overview</Button>}>
      The address may be mistyped, or what it named is gone.
    </Empty>
  </div>
);
