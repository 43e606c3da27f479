import { useQuery, useQueryClient, type QueryClient } from "@tanstack/react-query";
import { useEffect, useSyncExternalStore } from "react";
import { ApiError, objects, type Item, type ItemList, type LiveStatus } from "./client";
import { modelQuery, type Model } from "./model";

type Commit = { revision: number; changes?: { kind: string; name: string; action?: string }[] };
export type Connection = "connecting" | "open" | "lost";
type Live = { connection: Connection; since: number; head: number; status: LiveStatus | undefined };

let now: Live = { connection: "connecting", since: Date.now(), head: 0, status: undefined };
const listeners = new Set<() => void>();
function set(change: Partial<Live>) {
  if (change.connection && change.connection !== now.connection) change.since = Date.now();
  now = { ...now, ...change };
  for (const l of listeners) l();
}
const subscribe = (l: () => void) => {
  listeners.add(l);
  return () => {
    listeners.delete(l);
  };
};

/** What the stream of events has said last. */
export const useLive = () => useSyncExternalStore(subscribe, () => now);

/** The list of a kind, whole, in pages that the cache keeps together. */
export const listKey = (kind: string) => ["objects", kind] as const;
export const objectKey = (kind: string, name: string) => ["object", kind, name] as const;

/** More changed objects than this are not read one by one: the list is read again. */
const few = 20;

// A revision names what it changes; that alone is read again, so that a list of 10,000 costs one object a change.
async function changed(cache: QueryClient, model: Model, commits: Commit[]) {
  const touched = new Map<string, Set<string>>();
  let unknown = false;
  for (const c of commits) {
    if (!c.changes) unknown = true;
    for (const x of c.changes ?? []) {
      const path = model.byName.get(x.kind)?.path;
      if (path) (touched.get(path) ?? touched.set(path, new Set()).get(path))?.add(x.name);
    }
  }
  if (unknown) {
    void cache.invalidateQueries({ queryKey: ["objects"] });
    void cache.invalidateQueries({ queryKey: ["object"] });
    return;
  }
  for (const [path, names] of touched) {
    for (const name of names) void cache.invalidateQueries({ queryKey: objectKey(path, name) });
    if (!cache.getQueryData(listKey(path))) continue;
    if (names.size > few) {
      void cache.invalidateQueries({ queryKey: listKey(path) });
      continue;
    }
    const fresh = await Promise.all(
      [...names].map((name) =>
        objects.get(path, name).then(
          (o) => [name, o] as const,
          (e: unknown) => (e instanceof ApiError && e.status === 404 ? ([name, undefined] as const) : undefined),
        ),
      ),
    );
    cache.setQueryData<ItemList>(listKey(path), (old) => old && { ...old, items: merged(old.items, fresh) });
  }
}

function merged(items: Item[], fresh: (readonly [string, Item | undefined] | undefined)[]): Item[] {
  const by = new Map(items.map((i) => [i.name, i]));
  for (const f of fresh) {
    if (!f) continue;
    if (f[1]) by.set(f[0], f[1]);
    else by.delete(f[0]);
  }
  return [...by.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
}

/** Follows the events as long as it is mounted, and has the cache read again what they change. */
export function useFollow(signedIn: boolean) {
  const cache = useQueryClient();
  const model = useQuery(modelQuery).data;
  useEffect(() => {
    if (!signedIn || !model) return;
    let waiting: Commit[] = [];
    let timer: ReturnType<typeof setTimeout> | undefined;
    let lost = false;
    const flush = () => {
      timer = undefined;
      const commits = waiting;
      waiting = [];
      if (commits.length) void changed(cache, model, commits);
      for (const key of ["status", "revisions", "audit", "proxies", "nodes"])
        void cache.invalidateQueries({ queryKey: [key] });
    };
    const soon = () => {
      timer ??= setTimeout(flush, 150);
    };
    let again: ReturnType<typeof setTimeout> | undefined;
    let source: EventSource;
    const connect = () => {
      source = new EventSource("/v1/events");
      source.onopen = () => {
        set({ connection: "open" });
        if (lost) void cache.invalidateQueries({ predicate: (q) => q.queryKey[0] !== "model" });
        lost = false;
      };
      source.onerror = () => {
        lost = true;
        set({ connection: "lost" });
        void cache.invalidateQueries({ queryKey: ["session"] }); // a session that has ended is why, perhaps
        // The browser itself tries again where nobody answers, and gives up where an answer is an error.
        if (source.readyState === EventSource.CLOSED) again = setTimeout(connect, 2_000);
      };
      source.addEventListener("revision", (e) => {
        const commit = JSON.parse((e as MessageEvent<string>).data) as Commit;
        set({ head: Math.max(now.head, commit.revision) });
        waiting.push(commit);
        soon();
      });
      source.addEventListener("status", (e) => {
        set({ status: JSON.parse((e as MessageEvent<string>).data) as LiveStatus });
        soon();
      });
    };
    connect();
    return () => {
      source.close();
      clearTimeout(timer);
      clearTimeout(again);
      set({ connection: "connecting", status: undefined, head: 0 });
    };
  }, [cache, model, signedIn]);
}

export type ObjectState = { state: string; reason?: string | undefined };

/** What the Envoys make of an object now: what was read with it, and what the events have said since. */
export function stateOf(item: Item, status: LiveStatus | undefined): ObjectState {
  const read: ObjectState = item.status ?? { state: "pending" };
  if (!status) return read;
  const refusal = status.rejected?.find((r) => r.kind === item.kind && r.name === item.name);
  if (refusal) return { state: "rejected", reason: refusal.reason };
  if (read.state === "no_agents") return read;
  if (status.proxies === 0) return read.state === "live" ? { state: "no_proxies" } : read;
  if (status.live_revision >= (item.revision ?? 0) && read.state !== "rejected") return { state: "live", reason: read.reason };
  if (read.state === "rejected" && (status.rejected_objects ?? 0) === 0 && status.live_revision >= (item.revision ?? 0))
    return { state: "live" };
  return read;
}
