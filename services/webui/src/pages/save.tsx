import { Button, Checkbox, Group, Loader, Modal, SimpleGrid, Stack, Text, TextInput } from "@mantine/core";
import { notifications } from "@mantine/notifications";
import { IconCheck, IconClock, IconX } from "@tabler/icons-react";
import { useQuery, useQueryClient } from "@tanstack/react-query";
import { useEffect, useState } from "react";
import { ApiError, client, etagOf, objects, take, type ApplyResult, type Draft, type Item, type Warning } from "~/api/client";
import { objectKey, stateOf, useLive } from "~/api/live";
import type { Kind } from "~/api/model";
import { ErrorNote, Loading, Note, plural } from "~/ui/bits";
import { Changes, Lines, written } from "~/ui/diff";

export function Warnings({ warnings }: { warnings: Warning[] | undefined }) {
  if (!warnings?.length) return null;
  return (
    <Note tone="warn" title={plural(warnings.length, "thing to know", "things to know")}>
      <Stack gap={4} mt={4}>
        {warnings.map((w) => (
          <Text size="sm" key={w.path + w.message}>
            {w.kind} {w.name} <span className="mono muted">{w.path}</span> {w.message}
          </Text>
        ))}
      </Stack>
    </Note>
  );
}

/** Shows what a write would do, does it, and follows it to each Envoy. */
export function SaveDialog({ kind, name, draft, base, onSaved, onDone, onConflict }: { kind: Kind; name: string; draft: Draft; base: Item | undefined; onSaved: () => void; onDone: (now?: Item) => void; onConflict: () => void }) {
  const cache = useQueryClient();
  const [message, setMessage] = useState("");
  const [takeOver, setTakeOver] = useState(false);
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<unknown>();
  const [saved, setSaved] = useState<Item>();
  const preview = useQuery({
    queryKey: ["preview", kind.path, name, draft, base?.revision],
    queryFn: () => objects.put(kind.path, name, draft, { dryRun: true, fresh: !base, ...(base && { etag: etagOf(base.revision) }) }) as Promise<ApplyResult>,
    retry: false,
    staleTime: 0,
    gcTime: 0,
  });
  const conflict = !!base && [preview.error, error].some((e) => e instanceof ApiError && e.status === 412);
  useEffect(() => {
    if (conflict) onConflict();
  }, [conflict, onConflict]);

  const save = async () => {
    setBusy(true);
    setError(undefined);
    try {
      const body: Draft = { ...draft, ...(takeOver && { owner: "" }) };
      const now = (await objects.put(kind.path, name, body, { fresh: !base, ...(base && { etag: etagOf(base.revision) }), ...(message && { message }), takeOver })) as Item;
      onSaved();
      setSaved(now);
      void cache.invalidateQueries({ queryKey: objectKey(kind.path, name) });
    } catch (e) {
      setError(e);
    }
    setBusy(false);
  };
  const nothing = preview.data?.changes.length === 0;

  return (
    <Modal opened onClose={() => onDone(saved)} title={<Text fw={650} component="span">{saved ? `${kind.name} ${name} is saved` : `Save ${kind.word} ${name}`}</Text>} size="xl" closeButtonProps={{ "aria-label": "Close" }}>
      {saved ? (
        <Stack>
          <Warnings warnings={saved.warnings} />
          <GoingLive kind={kind} saved={saved} />
          <Group justify="flex-end">
            <Button onClick={() => onDone(saved)} data-autofocus>
              Done
            </Button>
          </Group>
        </Stack>
      ) : (
        <Stack>
          {preview.isPending && <Loading rows={4} />}
          {preview.isError && !conflict && <ErrorNote error={preview.error} />}
          {preview.data && (
            <>
              <Warnings warnings={preview.data.warnings} />
              <Changes changes={preview.data.changes} />
              {base?.owner && (
                <Checkbox checked={takeOver} onChange={(e) => setTakeOver(e.currentTarget.checked)} label={`Take it away from ${base.owner}: it belongs to nobody afterwards`} />
              )}
              <TextInput label="Why" description="For the history; may stay empty." value={message} onChange={(e) => setMessage(e.currentTarget.value)} maxLength={1024} data-autofocus />
            </>
          )}
          {error !== undefined && !conflict && <ErrorNote error={error} />}
          <Group justify="flex-end">
            <Button variant="default" onClick={() => onDone()}>
              Go on editing
            </Button>
            <Button onClick={() => void save()} loading={busy} disabled={!preview.data || (nothing && !takeOver)}>
              Save
            </Button>
          </Group>
        </Stack>
      )}
    </Modal>
  );
}

/** What each Envoy has of a revision, as it comes. */
export function GoingLive({ kind, saved }: { kind: Kind; saved: Item }) {
  const status = useLive().status;
  const revision = saved.revision ?? 0;
  const item = useQuery({ queryKey: objectKey(kind.path, saved.name ?? ""), queryFn: () => objects.get(kind.path, saved.name ?? "") }).data;
  const state = stateOf(item && (item.revision ?? 0) >= revision ? item : saved, status);
  const over = state.state === "live" || state.state === "rejected" || state.state.startsWith("no_");
  const proxies = useQuery({
    queryKey: ["proxies", "live", revision],
    queryFn: () => take(client.GET("/v1/proxies", { params: { query: { limit: 200 } as never } })),
    refetchInterval: over ? false : 400,
  }).data;
  return (
    <Stack gap="sm" aria-live="polite">
      {state.state === "live" && <Note tone="ok" title="Live">Every connected Envoy serves revision {revision}.</Note>}
      {state.state === "rejected" && (
        <Note tone="bad" title="Envoy refuses it; the last good version is served">
          <Text size="sm" className="mono" style={{ whiteSpace: "pre-wrap" }}>{state.reason}</Text>
        </Note>
      )}
      {state.state === "no_proxies" && <Note tone="info" title="Stored">No Envoy is connected. The first one that is gets it.</Note>}
      {state.state === "no_agents" && <Note tone="info" title="Stored">{state.reason}</Note>}
      {!over && <Note tone="info" title={`Revision ${revision} is going live`}>{state.reason}</Note>}
      {!!proxies?.items.length && (
        <div className="card rows">
          {proxies.items.map((p) => {
            const has = p.applied_revision >= revision;
            const refused = p.rejected?.find((r) => r.kind === kind.name && r.name === saved.name);
            return (
              <Group key={p.id + p.xds} px="md" py={9} justify="space-between" wrap="nowrap" gap="sm">
                <Text size="sm" className="cut" title={p.id}>
                  {p.id} <span className="muted">{p.gateway}</span>
                </Text>
                <Group gap={6} wrap="nowrap" style={{ flex: "none" }}>
                  {refused ? <IconX size={16} color="var(--mp-bad)" /> : has ? <IconCheck size={16} color="var(--mp-ok)" /> : p.connected ? <Loader size={14} /> : <IconClock size={16} />}
                  <Text size="sm">{refused ? "refuses it" : has ? "serves it" : p.connected ? (p.lacks ? `waits for ${p.lacks}` : "on its way") : "not connected"}</Text>
                </Group>
              </Group>
            );
          })}
        </div>
      )}
    </Stack>
  );
}

export function DeleteDialog({ kind, name, etag, onClose, onDeleted }: { kind: Kind; name: string; etag: string; onClose: () => void; onDeleted: () => void }) {
  const cache = useQueryClient();
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<unknown>();
  const preview = useQuery({ queryKey: ["preview-delete", kind.path, name], queryFn: () => objects.remove(kind.path, name, { dryRun: true, etag }), retry: false, staleTime: 0, gcTime: 0 });
  const remove = async () => {
    setBusy(true);
    try {
      await objects.remove(kind.path, name, { etag });
      cache.removeQueries({ queryKey: objectKey(kind.path, name) });
      notifications.show({ message: `${kind.name} ${name} is deleted. Revisions has it, to bring it back.`, color: "green" });
      onDeleted();
    } catch (e) {
      setError(e);
      setBusy(false);
    }
  };
  return (
    <Modal opened onClose={onClose} title={<Text fw={650} component="span">Delete {kind.word} {name}?</Text>} size="lg" closeButtonProps={{ "aria-label": "Close" }}>
      <Stack>
        {preview.isPending && <Loading rows={2} />}
        {(preview.error ?? error) !== null && (preview.error ?? error) !== undefined && <ErrorNote error={preview.error ?? error} />}
        {preview.data && (
          <>
            <Warnings warnings={preview.data.warnings} />
            <Changes changes={preview.data.changes} />
          </>
        )}
        <Group justify="flex-end">
          <Button variant="default" onClick={onClose} data-autofocus>
            Keep it
          </Button>
          <Button color="red" onClick={() => void remove()} loading={busy} disabled={!preview.data}>
            Delete
          </Button>
        </Group>
      </Stack>
    </Modal>
  );
}

/** Two people have edited one object: what each has made of it, and a choice. */
export function ConflictDialog({ kind, base, draft, onClose, onMine, onTheirs }: { kind: Kind; base: Item; draft: Draft; onClose: () => void; onMine: (theirs: Item) => void; onTheirs: (theirs: Item) => void }) {
  const name = base.name ?? "";
  const theirs = useQuery({ queryKey: ["theirs", kind.path, name], queryFn: () => objects.get(kind.path, name), retry: false, staleTime: 0, gcTime: 0 });
  const revision = theirs.data?.revision ?? 0;
  const who = useQuery({
    queryKey: ["revision", revision],
    queryFn: () => take(client.GET("/v1/revisions/{revision}", { params: { path: { revision: revision as never } } })),
    enabled: revision > 0,
  }).data;
  const before = written(base.spec, undefined, base.labels);
  return (
    <Modal opened onClose={onClose} title={<Text fw={650} component="span">Two versions of {kind.word} {name}</Text>} size="80rem" closeButtonProps={{ "aria-label": "Close" }}>
      <Stack>
        {theirs.isPending && <Loading rows={4} />}
        {theirs.isError && <ErrorNote error={theirs.error} />}
        {theirs.data && (
          <>
            <Text size="sm">
              You began with revision {base.revision}. {who ? `${who.actor} has saved` : "Somebody has saved"} revision {revision} meanwhile{who?.message ? `: “${who.message}”` : ""}.
            </Text>
            <SimpleGrid cols={{ base: 1, md: 2 }}>
              <Stack gap={6}>
                <Text fw={650} size="sm">What {who?.actor ?? "the other one"} changed</Text>
                <Lines label="Their changes" before={before} after={written(theirs.data.spec, undefined, theirs.data.labels)} />
              </Stack>
              <Stack gap={6}>
                <Text fw={650} size="sm">What you changed</Text>
                <Lines label="Your changes" before={before} after={written(draft.spec, undefined, draft.labels)} />
              </Stack>
            </SimpleGrid>
          </>
        )}
        <Group justify="flex-end">
          <Button variant="default" onClick={onClose}>
            Go on editing
          </Button>
          <Button variant="default" disabled={!theirs.data} onClick={() => theirs.data && onTheirs(theirs.data)}>
            Take theirs, drop mine
          </Button>
          <Button disabled={!theirs.data} onClick={() => theirs.data && onMine(theirs.data)}>
            Save mine over theirs…
          </Button>
        </Group>
      </Stack>
    </Modal>
  );
}
