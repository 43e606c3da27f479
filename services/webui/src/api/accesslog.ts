import { useEffect, useRef, useState } from "react";
import { ApiError, type Schemas } from "./client";
import type { Connection } from "./live";

export type LogEntry = Partial<Schemas["AccessLogEntry"]> & { status: number; share: number };
export type LogState = Schemas["AccessLogState"];
/** A row: an entry with a number of its own. */
export type LogRow = LogEntry & { n: number };

/** How many rows are kept: those before them go. */
export const keep = 1000;
/** How often rows are shown, in milliseconds: not each by itself. */
const every = 200;

const newest = (fresh: LogRow[], old: LogRow[]) => [...fresh, ...old].slice(0, keep);

/** Watches requests while it is mounted. Paused, what comes is kept beside what is shown. */
export function useAccessLog(query: Record<string, string | undefined>, paused: boolean) {
  const asked = new URLSearchParams(Object.entries(query).filter((e): e is [string, string] => !!e[1])).toString();
  const [rows, setRows] = useState<LogRow[]>([]);
  const [waiting, setWaiting] = useState(0);
  const [state, setState] = useState<LogState>();
  const [connection, setConnection] = useState<Connection>("connecting");
  const [error, setError] = useState<unknown>();
  const held = useRef<LogRow[]>([]);
  const hold = useRef(paused);
  hold.current = paused;

  useEffect(() => {
    let n = 0;
    held.current = [];
    setRows([]);
    setWaiting(0);
    setState(undefined);
    setConnection("connecting");
    setError(undefined);
    const url = `/v1/access-log${asked && `?${asked}`}`;
    let source: EventSource;
    let again: ReturnType<typeof setTimeout> | undefined;
    const asking = new AbortController();
    // An EventSource does not say why it was refused.
    const why = async () => {
      try {
        const r = await fetch(url, { signal: asking.signal });
        if (r.ok) void r.body?.cancel();
        else if (r.status < 500) return setError(new ApiError(r.status, (await r.json()) as Schemas["Problem"]));
      } catch {
        if (asking.signal.aborted) return;
      }
      again = setTimeout(connect, 2_000);
    };
    const connect = () => {
      source = new EventSource(url);
      source.onopen = () => setConnection("open");
      source.onerror = () => {
        setConnection("lost");
        setState(undefined);
        if (source.readyState === EventSource.CLOSED) void why();
      };
      source.addEventListener("state", (e) => setState(JSON.parse((e as MessageEvent<string>).data) as LogState));
      source.addEventListener("entry", (e) => {
        held.current.unshift({ ...(JSON.parse((e as MessageEvent<string>).data) as LogEntry), n: n++ });
        if (held.current.length > keep) held.current.length = keep;
      });
    };
    connect();
    const show = setInterval(() => {
      if (hold.current) return setWaiting(held.current.length);
      setWaiting(0);
      if (!held.current.length) return;
      const fresh = held.current;
      held.current = [];
      setRows((old) => newest(fresh, old));
    }, every);
    return () => {
      source.close();
      asking.abort();
      clearTimeout(again);
      clearInterval(show);
    };
  }, [asked]);
  return { rows, waiting, state, connection, error, clear: () => { held.current = []; setRows([]); setWaiting(0); } };
}
