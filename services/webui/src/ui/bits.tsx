import { Button, Center, Group, Skeleton, Stack, Text, Title, Tooltip } from "@mantine/core";
import { IconAlertTriangle, IconCircleCheck, IconInfoCircle, IconPlugConnectedX, IconRefresh } from "@tabler/icons-react";
import { useEffect, useState, type ReactNode } from "react";
import { ApiError } from "~/api/client";
import type { ObjectState } from "~/api/live";

export type Tone = "ok" | "warn" | "bad" | "info" | "idle";

export const Pill = ({ tone, children, title }: { tone: Tone; children: ReactNode; title?: string | undefined }) =>
  title ? (
    <Tooltip label={title}>
      <span className="pill" data-tone={tone} tabIndex={0}>
        {children}
      </span>
    </Tooltip>
  ) : (
    <span className="pill" data-tone={tone}>
      {children}
    </span>
  );

const states: Record<string, [Tone, string]> = {
  live: ["ok", "Live"],
  pending: ["info", "Going live"],
  rejected: ["bad", "Refused"],
  no_proxies: ["idle", "No Envoy"],
  no_agents: ["idle", "No node"],
  timeout: ["warn", "Waiting"],
};

export function StateBadge({ state }: { state: ObjectState }) {
  const [tone, word] = states[state.state] ?? ["idle", state.state];
  return (
    <Pill tone={tone} title={state.reason}>
      {word}
    </Pill>
  );
}

const spans: [number, Intl.RelativeTimeFormatUnit][] = [
  [60, "second"],
  [60, "minute"],
  [24, "hour"],
  [30, "day"],
  [12, "month"],
  [Infinity, "year"],
];
const relative = new Intl.RelativeTimeFormat("en", { numeric: "auto", style: "short" });

export function ago(at: string, from = Date.now()): string {
  let n = (Date.parse(at) - from) / 1000;
  if (Math.abs(n) < 10) return n > 0 ? "in a moment" : "just now";
  for (const [size, unit] of spans) {
    if (Math.abs(n) < size) return relative.format(Math.round(n), unit).replace(/\./, "");
    n /= size;
  }
  return at;
}

/** A time, by how long ago it is; the time itself is shown by pointing at it. */
export function Age({ at }: { at: string | undefined }) {
  const [, tick] = useState(0);
  useEffect(() => {
    const t = setInterval(() => tick((n) => n + 1), 15_000);
    return () => clearInterval(t);
  }, []);
  if (!at) return <span className="muted">–</span>;
  return (
    <time dateTime={at} title={new Date(at).toLocaleString()} className="nowrap">
      {ago(at)}
    </time>
  );
}

const noteIcons = { warn: IconAlertTriangle, bad: IconAlertTriangle, info: IconInfoCircle, ok: IconCircleCheck };

export function Note({ tone, title, children, action }: { tone: keyof typeof noteIcons; title?: ReactNode; children?: ReactNode; action?: ReactNode }) {
  const Icon = noteIcons[tone];
  return (
    <div className="note" data-tone={tone} role={tone === "bad" ? "alert" : "status"}>
      <Icon size={18} aria-hidden />
      <div className="note-body">
        {title && <Text fw={650} size="sm">{title}</Text>}
        {children}
      </div>
      {action}
    </div>
  );
}

/** What went wrong, in the API's words, and what is wrong with each field. */
export function ErrorNote({ error, retry }: { error: unknown; retry?: () => void }) {
  const api = error instanceof ApiError ? error : undefined;
  const title = api?.status === 0 ? "The API does not answer" : api?.status === 403 ? "Not allowed" : "That did not work";
  return (
    <Note
      tone="bad"
      title={title}
      action={
        retry && (
          <Button size="xs" variant="default" leftSection={<IconRefresh size={14} />} onClick={retry}>
            Try again
          </Button>
        )
      }
    >
      <Text size="sm">{error instanceof Error ? error.message : String(error)}</Text>
      {api && api.errors.length > 0 && (
        <ul>
          {api.errors.map((e) => (
            <li key={e.path + e.message}>
              {e.path !== "$" && <span className="mono">{e.path} </span>}
              {e.message}
            </li>
          ))}
        </ul>
      )}
      {api?.problem.request_id && (
        <Text size="xs" className="muted">
          request {api.problem.request_id}
        </Text>
      )}
    </Note>
  );
}

export function Empty({ icon, title, children, action, small }: { icon?: ReactNode; title: ReactNode; children?: ReactNode; action?: ReactNode; small?: boolean }) {
  return (
    <Center p="xl" mih={small ? 0 : 240}>
      <Stack align="center" gap="xs" maw={460} ta="center">
        {icon && <span className="muted" style={{ lineHeight: 0 }}>{icon}</span>}
        <Text fw={650} component="div">{title}</Text>
        {children && (
          <Text size="sm" className="muted" component="div">
            {children}
          </Text>
        )}
        {action && <div style={{ marginTop: 8 }}>{action}</div>}
      </Stack>
    </Center>
  );
}

export function Loading({ rows = 6 }: { rows?: number }) {
  return (
    <Stack gap="sm" p="md" aria-busy="true" aria-label="Loading">
      {Array.from({ length: rows }, (_, i) => (
        <Skeleton key={i} h={18} w={`${90 - ((i * 17) % 40)}%`} />
      ))}
    </Stack>
  );
}

export function PageHead({ title, children, actions, beside }: { title: ReactNode; children?: ReactNode; actions?: ReactNode; /** The actions are small, and stand beside the title on phones, too. */ beside?: boolean }) {
  return (
    <Group justify="space-between" align="flex-start" gap="md" mb="lg" wrap={beside ? "nowrap" : "wrap"}>
      <div style={{ minWidth: 0, flex: "1 1 320px" }}>
        <Title order={1} style={{ overflowWrap: "anywhere" }}>{title}</Title>
        {children && (
          <Text size="sm" className="muted" mt={4} maw={760} component="div">
            {children}
          </Text>
        )}
      </div>
      {actions && <Group gap="xs" style={{ flex: "none" }}>{actions}</Group>}
    </Group>
  );
}

export const LostIcon = IconPlugConnectedX;

export const plural = (n: number, word: string, many = `${word}s`) => `${n.toLocaleString("en")} ${n === 1 ? word : many}`;

/** The page's name in the browser's tab. */
export function useTitle(title: string) {
  useEffect(() => {
    document.title = `${title} · MarchProxy`;
  }, [title]);
}
