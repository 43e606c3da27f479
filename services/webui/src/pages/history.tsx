import { Group, Stack, Text } from "@mantine/core";
import { useQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import { client, take } from "~/api/client";
import type { Kind } from "~/api/model";
import { Age, ErrorNote, Loading, Pill } from "~/ui/bits";

/** Who has changed an object, when and why. */
export function History({ kind, name }: { kind: Kind; name: string }) {
  const list = useQuery({
    queryKey: ["audit", "of", kind.name, name],
    queryFn: () => take(client.GET("/v1/audit", { params: { query: { kind: kind.name, object: name, limit: 100 } as never } })),
  });
  if (list.isError) return <ErrorNote error={list.error} retry={() => void list.refetch()} />;
  if (!list.data) return <div className="card"><Loading /></div>;
  return (
    <div className="card rows">
      {list.data.items.map((e) => (
        <Group key={`${e.revision}${e.action}`} px="md" py={11} gap="sm" wrap="nowrap" align="flex-start">
          <div style={{ flex: "none", width: 92 }}>
            <Pill tone={e.action === "delete" ? "bad" : e.action === "create" ? "ok" : "info"}>{{ create: "New", update: "Changed", delete: "Deleted" }[e.action] ?? e.action}</Pill>
          </div>
          <Stack gap={2} style={{ minWidth: 0, flex: 1 }}>
            <Text size="sm" style={{ overflowWrap: "anywhere" }}>
              <Link className="link" to="/revisions/$revision" params={{ revision: String(e.revision) }}>revision {e.revision}</Link> by {e.actor}
            </Text>
            {e.message && <Text size="sm" className="muted">{e.message}</Text>}
          </Stack>
          <Text size="sm" className="muted" style={{ flex: "none" }}><Age at={e.at} /></Text>
        </Group>
      ))}
    </div>
  );
}
