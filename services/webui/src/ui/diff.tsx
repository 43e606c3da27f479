import { Group, Stack, Text } from "@mantine/core";
import { structuredPatch } from "diff";
import { stringify } from "yaml";
import type { Change, Json } from "~/api/client";
import { Pill, type Tone } from "./bits";

export const yamlOf = (value: unknown) =>
  value === undefined ? "" : stringify(value, { lineWidth: 0, aliasDuplicateObjects: false });

/** Two texts, line by line, with a few lines around each difference. */
export function Lines({ before, after, label }: { before: string; after: string; label: string }) {
  const patch = structuredPatch("", "", before, after, "", "", { context: 3 });
  if (patch.hunks.length === 0) return <Text size="sm" className="muted">No difference.</Text>;
  return (
    <div className="diff" tabIndex={0} role="region" aria-label={label}>
      {patch.hunks.map((h, i) => (
        <div key={i}>
          {(i > 0 || h.oldStart > 1) && (
            <div className="diff-line" data-sign="…">
              <span>⋯</span>
              <span>line {h.newStart}</span>
            </div>
          )}
          {h.lines
            .filter((l) => !l.startsWith("\\"))
            .map((l, j) => (
              <div className="diff-line" data-sign={l[0]} key={j}>
                <span>{l[0] === " " ? "" : l[0]}</span>
                <span>{l.slice(1) || " "}</span>
              </div>
            ))}
        </div>
      ))}
    </div>
  );
}

const tones: Record<string, [Tone, string]> = { create: ["ok", "New"], update: ["info", "Changed"], delete: ["bad", "Deleted"] };

/** What of an object a person writes, as YAML. */
export function written(spec: unknown, owner?: string, labels?: Record<string, string>): string {
  if (spec === undefined || spec === null) return "";
  return yamlOf({ ...(owner && { owner }), ...(labels && Object.keys(labels).length && { labels }), spec: spec as Json });
}

/** One object before and after. */
export function ChangeView({ change }: { change: Change }) {
  const [tone, word] = tones[change.action] ?? ["idle", change.action];
  return (
    <Stack gap={6}>
      <Group gap="xs">
        <Pill tone={tone}>{word}</Pill>
        <Text fw={600} size="sm" style={{ overflowWrap: "anywhere" }}>
          {change.kind} {change.name}
        </Text>
      </Group>
      <Lines
        label={`What changes in ${change.kind} ${change.name}`}
        before={written(change.before, change.owner_before, change.labels_before)}
        after={written(change.after, change.owner_after, change.labels_after)}
      />
    </Stack>
  );
}

export function Changes({ changes }: { changes: Change[] }) {
  if (changes.length === 0) return <Text size="sm" className="muted">Nothing changes.</Text>;
  return (
    <Stack gap="lg">
      {changes.slice(0, 50).map((c) => (
        <ChangeView change={c} key={`${c.kind}/${c.name}`} />
      ))}
      {changes.length > 50 && <Text size="sm" className="muted">and {changes.length - 50} more</Text>}
    </Stack>
  );
}
