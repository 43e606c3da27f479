import { Anchor, Button, Checkbox, Code, Collapse, Group, Stack, Text, TextInput } from "@mantine/core";
import { useDebouncedValue } from "@mantine/hooks";
import { IconArrowRight } from "@tabler/icons-react";
import { useQuery, useQueryClient } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import { useMemo, useState, type FormEvent } from "react";
import { ApiError, client, objects, take, type ApplyResult, type Item, type Spec } from "~/api/client";
import { objectKey, stateOf, useLive } from "~/api/live";
import { mayAs, modelQuery, type Kind } from "~/api/model";
import { useSession } from "~/session";
import { ErrorNote, Loading, Note, PageHead, useTitle } from "~/ui/bits";
import { Changes } from "~/ui/diff";
import { GoingLive, Warnings } from "./save";

const gatewayName = "default";
type Listener = { name: string; port: number; protocol?: string };

/** Where a program listens, as people write it: 127.0.0.1:8080, web:80, https://10.0.0.7, [::1]:8080. */
function targetOf(written: string): { host: string; port: number; https: boolean } | undefined {
  const parts = /^(?:(https?):\/\/)?(?:\[([0-9a-f:.]+)\]|([^:/\s[\]]+))(?::(\d{1,5}))?\/?$/i.exec(written.trim());
  if (!parts) return undefined;
  const https = parts[1]?.toLowerCase() === "https";
  const port = parts[4] ? Number(parts[4]) : parts[1] ? (https ? 443 : 80) : 0;
  return port > 0 && port < 65536 ? { host: (parts[2] ?? parts[3])!, port, https } : undefined;
}

/** A name for what leads to a host: lower case letters, digits and hyphens, as the API has them. */
const nameFor = (host: string) =>
  host.toLowerCase().replace(/^\*/, "any").replace(/[^a-z0-9]+/g, "-").slice(0, 63).replace(/^-+|-+$/g, "");

/** Whether nothing is there yet of what a dry run would write. */
const isFree = (dry: ApplyResult) => dry.changes.length === 2 && dry.changes.every((c) => c.action === "create");

/** A service and the route to it, by one form: what a newcomer makes first. */
export function Publish() {
  useTitle("Publish a service");
  const model = useQuery(modelQuery).data;
  const role = useSession()?.role;
  const gateway = useQuery({ queryKey: objectKey("gateways", gatewayName), queryFn: () => objects.get("gateways", gatewayName), retry: false });
  const route = model?.byPath.get("routes");
  if (!model || !route || gateway.isPending) return <div className="card"><Loading rows={6} /></div>;
  return (
    <>
      <PageHead title="Publish a service">Puts a program of yours behind the proxy: a service, and the route that leads to it.</PageHead>
      {mayAs(role, route.role) ? (
        <Form route={route} gateway={gateway.data} />
      ) : (
        <Note tone="info" title="You may look, and not write">What is published here is a service and a route, which need the role {route.role}.</Note>
      )}
    </>
  );
}

function Form({ route, gateway }: { route: Kind; gateway: Item | undefined }) {
  const cache = useQueryClient();
  const [host, setHost] = useState("");
  const [address, setAddress] = useState("");
  const [ownName, setOwnName] = useState<string>();
  const [https, setHTTPS] = useState(true);
  const [shows, setShows] = useState(false);
  const [busy, setBusy] = useState(false);
  // What could not be published, and why: written differently, it is another one.
  const [failed, setFailed] = useState<{ of: unknown; error: unknown }>();
  const [saved, setSaved] = useState<{ item: Item; result: ApplyResult }>();
  const issuer = gateway?.spec["certificate_issuer"];
  const target = targetOf(address);
  const name = ownName ?? nameFor(host);

  const resources = useMemo(() => {
    if (!target || !host || !name) return undefined;
    const service: Spec = { endpoints: [{ host: target.host, port: target.port }], ...(target.https && { protocol: "https" }) };
    const to: Spec = { hosts: [host.trim()], path: { prefix: "/" }, backends: [{ service: name }], ...(issuer && https && { tls: "auto" }) };
    return [{ kind: "Service", name, spec: service }, { kind: "Route", name, spec: to }];
    // What is written says all of it: target is another object each time.
  }, [host, address, name, issuer, https]);
  const [probe] = useDebouncedValue(resources, 400);
  const apply = (of: typeof resources, dry: boolean) => take(client.POST("/v1/apply", { body: { dry_run: dry, resources: of as never } })) as Promise<unknown> as Promise<ApplyResult>;
  const check = useQuery({ queryKey: ["publish", probe], queryFn: () => apply(probe, true), enabled: !!probe, retry: false, staleTime: 0, gcTime: 0 });
  const taken = !!check.data && !isFree(check.data);
  const refusal = failed?.of === resources ? failed?.error : probe === resources ? check.error : undefined;
  const errors = refusal instanceof ApiError ? refusal.errors : [];
  const wrong = (part: RegExp) => errors.find((e) => part.test(e.path))?.message;
  const hostError = wrong(/spec\.hosts/);
  const addressError = address && !target && !/^(https?:\/\/)?\S{0,3}$/.test(address) ? "A host and a port, such as 127.0.0.1:8080 or https://10.0.0.7" : wrong(/spec\.endpoints/);
  const nameError = taken ? `There is a service or a route ${name} already` : wrong(/\.name$/);
  const ready = !!resources && !hostError && !addressError && !nameError && !taken;

  const publish = async () => {
    if (!resources || !ready) return;
    setBusy(true);
    setFailed(undefined);
    try {
      // Looked at once more: somebody may have taken the name since, and what he made would be written over.
      const now = await apply(resources, true);
      if (!isFree(now)) void check.refetch();
      else {
        const result = await apply(resources, false);
        setSaved({ result, item: await objects.get("routes", name) });
        void cache.invalidateQueries({ queryKey: ["objects"] });
      }
    } catch (e) {
      setFailed({ of: resources, error: e });
    }
    setBusy(false);
  };

  if (saved) return <Published route={route} saved={saved.item} result={saved.result} host={host.trim()} gateway={gateway} again={() => { setSaved(undefined); setHost(""); setAddress(""); setOwnName(undefined); }} />;
  return (
    <form
      className="card"
      style={{ padding: 20, maxWidth: 720 }}
      onSubmit={(e: FormEvent) => {
        e.preventDefault();
        void publish();
      }}
    >
      <Stack gap="lg">
        <TextInput label="Host" description="By which clients call it. *.example.com is all below example.com." placeholder="shop.example.com" value={host} onChange={(e) => setHost(e.currentTarget.value)} error={hostError} required withAsterisk={false} autoFocus autoComplete="off" spellCheck={false} />
        <TextInput label="Address" description="Where your program listens, as the Envoys reach it." placeholder="127.0.0.1:8080" value={address} onChange={(e) => setAddress(e.currentTarget.value)} error={addressError} required withAsterisk={false} autoComplete="off" spellCheck={false} />
        {issuer ? <Checkbox checked={https} onChange={(e) => setHTTPS(e.currentTarget.checked)} label={`HTTPS: get a certificate from ${String(issuer)}, and renew it`} /> : null}
        {(name || ownName !== undefined) && <TextInput label="Name" description="Of the service and the route, for everybody who works on them. It stays." value={name} onChange={(e) => setOwnName(e.currentTarget.value)} error={nameError} required withAsterisk={false} autoComplete="off" spellCheck={false} />}
        {check.data && probe === resources && !taken && (
          <div>
            <Warnings warnings={check.data.warnings} />
            <Button variant="subtle" size="compact-sm" mt={4} onClick={() => setShows(!shows)} aria-expanded={shows}>{shows ? "Hide what is written" : "Show what is written"}</Button>
            <Collapse expanded={shows}><div style={{ paddingTop: 12 }}><Changes changes={check.data.changes} /></div></Collapse>
          </div>
        )}
        {refusal !== undefined && refusal !== null && !hostError && !addressError && !nameError && <ErrorNote error={refusal} />}
        <Group justify="flex-end">
          <Button type="submit" loading={busy} disabled={!ready}>Publish</Button>
        </Group>
      </Stack>
    </form>
  );
}

/** How far it is, and how it is asked. */
function Published({ route, saved, result, host, gateway, again }: { route: Kind; saved: Item; result: ApplyResult; host: string; gateway: Item | undefined; again: () => void }) {
  const item = useQuery({ queryKey: objectKey("routes", saved.name), queryFn: () => objects.get("routes", saved.name) }).data ?? saved;
  const live = stateOf(item, useLive().status).state === "live";
  const plain = ((gateway?.spec["listeners"] ?? []) as Listener[]).find((l) => (l.protocol ?? "http") === "http");
  const asks = host.replace(/^\*/, "www");
  return (
    <Stack gap="lg" maw={720}>
      <Warnings warnings={result.warnings} />
      <GoingLive kind={route} saved={saved} />
      {live && (
        <div className="card" style={{ padding: 20 }}>
          <Stack gap="sm">
            {plain && (
              <>
                <Text size="sm">From a machine that reaches the Envoys:</Text>
                <Code block tabIndex={0}>{`curl -H 'Host: ${asks}' http://${window.location.hostname}:${plain.port}/`}</Code>
              </>
            )}
            <Text size="sm" className="muted">Let the name {asks} lead to your Envoys, in DNS, for everybody else.</Text>
            <Group gap="lg">
              <Anchor component={Link} to="/try" search={{ host: asks } as never} size="sm">Try a request</Anchor>
              <Anchor component={Link} to="/access-log" search={{ route: saved.name } as never} size="sm">Watch its requests</Anchor>
              <Anchor component={Link} to={`/services/${saved.name}` as "/"} size="sm">The service</Anchor>
              <Anchor component={Link} to={`/routes/${saved.name}` as "/"} size="sm">The route</Anchor>
            </Group>
          </Stack>
        </div>
      )}
      <Group>
        <Button variant="default" onClick={again} rightSection={<IconArrowRight size={16} />}>Publish another one</Button>
      </Group>
    </Stack>
  );
}
