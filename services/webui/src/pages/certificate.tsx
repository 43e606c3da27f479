import { Button, Group, SimpleGrid, Stack, Text } from "@mantine/core";
import { IconRefresh } from "@tabler/icons-react";
import { useQuery, useQueryClient } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import { useState, type ReactNode } from "react";
import { client, objects, take, type Issuance, type Item, type Spec } from "~/api/client";
import { mayAs } from "~/api/model";
import { issuanceWords } from "~/kinds";
import { useSession } from "~/session";
import { Age, ErrorNote, Note, Pill } from "~/ui/bits";

const Fact = ({ name, children }: { name: string; children: ReactNode }) => (
  <div style={{ minWidth: 0 }}>
    <Text size="xs" className="muted">{name}</Text>
    <Text size="sm" component="div" style={{ overflowWrap: "anywhere" }}>{children}</Text>
  </div>
);

const date = (at: string) => new Date(at).toLocaleDateString("en", { year: "numeric", month: "short", day: "numeric" });

/** What a certificate says of itself, and how far its issuer is with the next one. */
export function CertificateCard({ item }: { item: Item }) {
  const facts = (item.spec["facts"] as Spec | undefined) ?? {};
  const text = (n: string) => (typeof facts[n] === "string" ? (facts[n] as string) : "");
  const issuer = typeof item.spec["issuer"] === "string" ? item.spec["issuer"] : "";
  const names = Array.isArray(facts["dns_names"]) ? facts["dns_names"].map(String) : [];
  const ends = text("not_after");
  const over = ends !== "" && Date.parse(ends) < Date.now();
  return (
    <section className="card" style={{ padding: 20 }} aria-label="What the certificate says">
      <Stack gap="md">
        {issuer && <Progress item={item} issuer={issuer} />}
        {facts["placeholder"] !== true && ends && (
          <SimpleGrid cols={{ base: 1, xs: 2, md: 4 }} spacing="md">
            <Fact name="Names">{names.slice(0, 6).join(", ") || "none"}{names.length > 6 && ` and ${names.length - 6} more`}</Fact>
            <Fact name={over ? "Ended" : "Ends"}>{date(ends)}, <Age at={ends} /></Fact>
            <Fact name="Private key">{facts["has_private_key"] ? "stored, sealed" : "none: it is only trusted"}</Fact>
            <Fact name="Fingerprint (SHA-256)"><span className="mono" title={text("fingerprint")}>{text("fingerprint").slice(0, 16)}…</span></Fact>
          </SimpleGrid>
        )}
      </Stack>
    </section>
  );
}

function Progress({ item, issuer }: { item: Item; issuer: string }) {
  const cache = useQueryClient();
  const may = mayAs(useSession()?.role, "operator");
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<unknown>();
  // How far an order is is no revision, and so no event says it.
  const key = ["issuance", item.name];
  const issuance: Issuance | undefined = useQuery({ queryKey: key, queryFn: () => objects.get("certificates", item.name), refetchInterval: 5_000, initialData: item }).data.status?.issuance;
  const [tone, word] = issuanceWords(issuance);
  const now = async () => {
    setBusy(true);
    setError(undefined);
    try {
      await take(client.POST("/v1/certificates/{name}/renew", { params: { path: { name: item.name } } }));
      await cache.invalidateQueries({ queryKey: key });
    } catch (e) {
      setError(e);
    }
    setBusy(false);
  };
  return (
    <>
      <Group justify="space-between" align="flex-start" gap="sm">
        <Group gap="sm">
          <Pill tone={tone}>{word}</Pill>
          <Text size="sm">
            by <Link className="link" to="/$kind/$name" params={{ kind: "certificate-issuers", name: issuer }}>{issuer}</Link>
            {issuance?.note && <span className="muted">: {issuance.note}</span>}
          </Text>
        </Group>
        <Button size="xs" variant="default" leftSection={<IconRefresh size={14} />} onClick={() => void now()} loading={busy} disabled={!may}>
          {issuance?.issued_at ? "Renew now" : "Try now"}
        </Button>
      </Group>
      {issuance?.problem && (
        <Note tone="bad" title={`The last attempt failed: ${issuance.problem}`}>
          <Text size="sm" style={{ overflowWrap: "anywhere" }}>{issuance.reason}</Text>
          <Text size="sm" className="muted" mt={4}>
            {(issuance.failures ?? 0) > 1 && `${issuance.failures} attempts since the last success. `}
            {issuance.next_at && <>The next one is <Age at={issuance.next_at} />.</>}
          </Text>
        </Note>
      )}
      {error !== undefined && <ErrorNote error={error} />}
      {issuance?.issued_at && (
        <Text size="sm">
          Issued <Age at={issuance.issued_at} />
          {issuance.renew_at && <>, is renewed <Age at={issuance.renew_at} /></>}
          {issuance.explanation && <>: <a className="link" href={issuance.explanation} target="_blank" rel="noreferrer">why then</a></>}
        </Text>
      )}
    </>
  );
}
