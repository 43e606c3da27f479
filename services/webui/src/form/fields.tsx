import {
  ActionIcon,
  Autocomplete,
  Button,
  Combobox,
  Group,
  Input,
  MultiSelect,
  NumberInput,
  PasswordInput,
  Select,
  Stack,
  Switch,
  TagsInput,
  Text,
  Textarea,
  TextInput,
  useCombobox,
} from "@mantine/core";
import { useDebouncedValue } from "@mantine/hooks";
import { IconPlus, IconTrash, IconX } from "@tabler/icons-react";
import { useQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import { createContext, useContext, useId, useState, type ReactNode } from "react";
import { objects, type Json, type Spec, type Violation } from "~/api/client";
import { firstSentence, resolve, singular, type Model, type Schema } from "~/api/model";

type Form = { model: Model; errors: Violation[]; readOnly: boolean };
const Context = createContext<Form | undefined>(undefined);
const useForm = () => {
  const form = useContext(Context);
  if (!form) throw new Error("a field stands outside of its form");
  return form;
};

const acronyms: Record<string, string> = { tls: "TLS", jwt: "JWT", sni: "SNI", cidrs: "CIDRs", url: "URL", cors: "CORS", ttl: "TTL", api: "API", ip: "IP", jwks: "JWKS", id: "ID", http: "HTTP", tcp: "TCP", grpc: "gRPC", ipv6: "IPv6", syn: "SYN", sha256: "SHA-256" };
/** response_headers_timeout is Response headers timeout. */
export function labelOf(name: string): string {
  const words = name.split("_").map((w) => acronyms[w] ?? w);
  const text = words.join(" ");
  return text.charAt(0).toUpperCase() + text.slice(1);
}

const plain = (description: string | undefined) => (description ?? "").replace(/`/g, "");

/** What a field is for: its first sentence, and the others where asked for. */
function Help({ text }: { text: string }) {
  const [all, setAll] = useState(false);
  const first = firstSentence(text);
  if (!text) return null;
  return (
    <>
      {all ? text : first}
      {first.length < text.length && !all && (
        <>
          {" "}
          <Text component="button" type="button" inherit className="muted" td="underline" style={{ background: "none", border: 0, padding: 0, cursor: "pointer" }} onClick={() => setAll(true)}>
            more
          </Text>
        </>
      )}
    </>
  );
}

/** The kind that a string names an object of, by the field's name: auth_policy, ca_certificate, gateways. */
function referred(model: Model, name: string, parent: Schema | undefined): string | undefined {
  if (parent?.title === "GrpcCheck") return undefined;
  for (const k of model.kinds) {
    const many = k.path.replace(/-/g, "_");
    const one = singular(k.path).replace(/-/g, "_");
    if (name === one || name === many || name.endsWith(`_${one}`)) return k.path;
  }
  return undefined;
}

/** The names of a kind's objects that begin with what is typed. */
function useNames(kind: string | undefined, typed: string) {
  const [q] = useDebouncedValue(typed, 150);
  const got = useQuery({
    queryKey: ["names", kind, q],
    queryFn: async () => (await objects.list(kind ?? "", { limit: 50, ...(q && { q }) })).items.map((i) => i.name),
    enabled: !!kind,
    staleTime: 5_000,
    placeholderData: (old: string[] | undefined) => old,
  });
  return got.data;
}

type Props = { name: string; schema: Schema; parent?: Schema | undefined; value: Json | undefined; onChange: (v: Json | undefined) => void; path: string };

/** One setting, by the form that its schema gives it. */
export function Field(p: Props) {
  const { model, errors, readOnly } = useForm();
  const schema = resolve(model, p.schema);
  const own = errors.filter((e) => e.path === p.path).map((e) => e.message).join("; ") || undefined;
  const common = {
    label: labelOf(p.name),
    description: <Help text={plain(schema.description)} />,
    error: own,
    required: p.parent?.required?.includes(p.name) ?? false,
    withAsterisk: p.parent?.required?.includes(p.name) ?? false,
  };
  const text = typeof p.value === "string" ? p.value : "";
  const string = (v: string) => p.onChange(v === "" ? undefined : v);

  if (schema.properties) {
    if (schema.title === "PathMatch" || schema.title === "StringMatch") return <Match {...p} schema={schema} error={own} description={common.description} />;
    return (
      <Section label={common.label} description={common.description} error={own} {...(!readOnly && !common.required && { onRemove: () => p.onChange(undefined) })}>
        <Fields schema={schema} value={(p.value as Spec | undefined) ?? {}} onChange={p.onChange} path={p.path} />
      </Section>
    );
  }
  switch (schema.type) {
    case "boolean":
      return <Switch {...common} required={false} checked={p.value === true} onChange={(e) => p.onChange(e.currentTarget.checked ? true : p.value === undefined ? undefined : false)} />;
    case "integer":
    case "number":
      return (
        <NumberInput
          {...common}
          value={typeof p.value === "number" ? p.value : ""}
          onChange={(v) => p.onChange(v === "" ? undefined : Number(v))}
          allowDecimal={schema.type === "number"}
          {...(schema.minimum !== undefined && schema.minimum > -1e15 && { min: schema.minimum })}
          {...(schema.maximum !== undefined && schema.maximum < 1e15 && { max: schema.maximum })}
          clampBehavior="none"
          thousandSeparator={p.name === "port" || p.name.endsWith("status") ? "" : ","}
          styles={{ wrapper: { maxWidth: 260 } }}
        />
      );
    case "array":
      return <List {...p} schema={schema} common={common} />;
    case "object":
      return <Pairs {...p} common={common} />;
  }
  if (schema.enum) return <Select {...common} data={schema.enum.map(String).filter(Boolean)} value={text || null} onChange={(v) => p.onChange(v ?? undefined)} clearable={!common.required} placeholder="Default" styles={{ wrapper: { maxWidth: 260 } }} />;
  const kind = referred(model, p.name, p.parent);
  if (kind) return <Reference {...p} kind={kind} common={common} />;
  if (schema.writeOnly && !["private_key", "chain"].includes(p.name)) return <PasswordInput {...common} value={text} onChange={(e) => string(e.currentTarget.value)} autoComplete="new-password" />;
  if (["chain", "private_key", "body", "jwks"].includes(p.name) || (schema.maxLength ?? 0) > 8192)
    return <Textarea {...common} value={text} onChange={(e) => string(e.currentTarget.value)} autosize minRows={2} maxRows={12} styles={{ input: { fontFamily: "var(--mantine-font-family-monospace)", fontSize: "0.82rem" } }} />;
  return <TextInput {...common} value={text} onChange={(e) => string(e.currentTarget.value)} placeholder={schema.pattern?.includes("ms|us") ? "30s" : ""} />;
}

type Common = { label: string; description: ReactNode; error: string | undefined; required: boolean; withAsterisk: boolean };

function Reference({ kind, common, value, onChange }: Props & { kind: string; common: Common }) {
  const text = typeof value === "string" ? value : "";
  const names = useNames(kind, text);
  return (
    <>
      <Autocomplete {...common} data={names ?? []} value={text} onChange={(v) => onChange(v === "" && !common.required ? undefined : v)} limit={50} comboboxProps={{ shadow: "md" }} placeholder={`Name of a ${singular(kind.replace(/-/g, " "))}`} />
      {names?.length === 0 && text === "" && (
        <Text size="xs" mt={4}>
          There is none yet: <Link className="link" to={`/${kind}/-/new` as "/"}>make a {singular(kind.replace(/-/g, " "))}</Link>
        </Text>
      )}
    </>
  );
}

const matchWords: Record<string, string> = { prefix: "begins with", exact: "is exactly", regex: "fits the expression", suffix: "ends with", present: "is there" };

/** A path or a text: how it is compared, and with what. */
function Match({ name, schema, parent, value, onChange, path, error, description }: Props & { error: string | undefined; description: ReactNode }) {
  const { errors } = useForm();
  const id = useId();
  const m = (value as Spec | undefined) ?? {};
  const ways = Object.keys(schema.properties ?? {}).sort((a, b) => Object.keys(matchWords).indexOf(a) - Object.keys(matchWords).indexOf(b));
  const way = ways.find((w) => m[w] !== undefined) ?? ways[0] ?? "prefix";
  const inner = errors.find((e) => e.path.startsWith(`${path}.`))?.message;
  const presence = way === "present";
  return (
    <Input.Wrapper label={labelOf(name)} description={description} error={error ?? inner} labelElement="label" labelProps={{ htmlFor: id }} required={parent?.required?.includes(name) ?? false}>
      <Group gap="xs" mt={6} align="flex-start">
        <Select
          aria-label={`${labelOf(name)}: how it is compared`}
          data={ways.map((w) => ({ value: w, label: matchWords[w] ?? w }))}
          value={way}
          allowDeselect={false}
          onChange={(w) => w && onChange({ [w]: w === "present" ? true : typeof m[way] === "string" ? (m[way] as string) : "" })}
          style={{ flex: "1 1 150px", maxWidth: 200 }}
        />
        {presence ? (
          <Select id={id} data={[{ value: "true", label: "yes" }, { value: "false", label: "no" }]} value={String(m["present"] ?? true)} allowDeselect={false} onChange={(v) => onChange({ present: v === "true" })} w={100} aria-label={labelOf(name)} />
        ) : (
          <TextInput id={id} value={typeof m[way] === "string" ? (m[way] as string) : ""} onChange={(e) => onChange({ [way]: e.currentTarget.value })} style={{ flex: "3 1 200px" }} error={!!(error ?? inner)} styles={{ input: { fontFamily: "var(--mantine-font-family-monospace)" } }} />
        )}
      </Group>
    </Input.Wrapper>
  );
}

function List({ name, schema, parent, value, onChange, path, common }: Props & { common: Common }) {
  const { model, errors, readOnly } = useForm();
  const [typed, setTyped] = useState("");
  const items = Array.isArray(value) ? value : [];
  const item = resolve(model, schema.items ?? {});
  const kind = item.type === "string" ? referred(model, name, parent) : undefined;
  const names = useNames(kind, typed);
  const within = errors.filter((e) => e.path.startsWith(`${path}[`));
  if (item.properties) {
    const word = singular(labelOf(name).toLowerCase());
    return (
      <Section label={common.label} description={common.description} error={common.error} {...(!readOnly && !common.required && { onRemove: () => onChange(undefined) })}>
        <Stack gap="sm">
          {items.map((v, i) => (
            <div className="setting" key={i}>
              <Group align="flex-start" wrap="nowrap" gap="xs">
                <div style={{ flex: 1, minWidth: 0 }}>
                  <Fields schema={item} value={v as Spec} onChange={(x) => onChange(items.map((y, j) => (j === i ? (x ?? {}) : y)))} path={`${path}[${i}]`} />
                </div>
                {!readOnly && (
                  <ActionIcon aria-label={`Remove ${word} ${i + 1}`} onClick={() => onChange(items.length === 1 && !common.required ? undefined : items.filter((_, j) => j !== i))}>
                    <IconTrash size={16} />
                  </ActionIcon>
                )}
              </Group>
            </div>
          ))}
          {!readOnly && (
            <div>
              <Button variant="default" size="xs" leftSection={<IconPlus size={14} />} onClick={() => onChange([...items, {}])}>
                Add {/^[aeiou]/.test(word) ? "an" : "a"} {word}
              </Button>
            </div>
          )}
        </Stack>
      </Section>
    );
  }
  const error = common.error ?? (within.length ? within.map((e) => `${items[Number(/\[(\d+)\]/.exec(e.path.slice(path.length))?.[1])] ?? ""} ${e.message}`.trim()).join("; ") : undefined);
  const set = (v: string[]) => onChange(v.length === 0 ? undefined : item.type === "string" ? v : v.map(Number).filter((n) => !Number.isNaN(n)));
  if (item.enum) return <MultiSelect {...common} error={error} data={item.enum.map(String)} value={items.map(String)} onChange={set} clearable searchable />;
  return (
    <TagsInput
      {...common}
      error={error}
      value={items.map(String)}
      onChange={set}
      data={(names ?? []).filter((n) => !items.includes(n))}
      searchValue={typed}
      onSearchChange={setTyped}
      acceptValueOnBlur
      splitChars={[",", " ", "\n"]}
      placeholder={items.length ? "" : "Type, and Enter after each"}
      clearable
    />
  );
}

/** Names with values: labels, fields. */
export function Pairs({ value, onChange, common }: { value: Json | undefined; onChange: (v: Json | undefined) => void; common: Common }) {
  const { readOnly } = useForm();
  const pairs = Object.entries((value as Record<string, string> | undefined) ?? {});
  const [fresh, setFresh] = useState("");
  const put = (list: [string, string][]) => onChange(list.length ? Object.fromEntries(list) : undefined);
  return (
    <Input.Wrapper {...common} labelElement="div">
      <Stack gap={6} mt={6}>
        {pairs.map(([k, v], i) => (
          <Group key={k} gap="xs" wrap="nowrap">
            <TextInput aria-label={`Name ${i + 1}`} value={k} readOnly style={{ flex: 1 }} />
            <TextInput aria-label={`Value of ${k}`} value={v} onChange={(e) => put(pairs.map(([n, o]) => [n, n === k ? e.currentTarget.value : o]))} style={{ flex: 1.5 }} />
            {!readOnly && (
              <ActionIcon aria-label={`Remove ${k}`} onClick={() => put(pairs.filter(([n]) => n !== k))}>
                <IconX size={16} />
              </ActionIcon>
            )}
          </Group>
        ))}
        {!readOnly && (
          <Group gap="xs" wrap="nowrap">
            <TextInput
              aria-label={`New name of ${common.label.toLowerCase()}`}
              placeholder="name"
              value={fresh}
              onChange={(e) => setFresh(e.currentTarget.value)}
              onKeyDown={(e) => {
                if (e.key !== "Enter" || !fresh) return;
                e.preventDefault();
                put([...pairs, [fresh, ""]]);
                setFresh("");
              }}
              style={{ flex: 1, maxWidth: 260 }}
            />
            <Button variant="default" size="sm" disabled={!fresh || pairs.some(([k]) => k === fresh)} onClick={() => { put([...pairs, [fresh, ""]]); setFresh(""); }}>
              Add
            </Button>
          </Group>
        )}
      </Stack>
    </Input.Wrapper>
  );
}

function Section({ label, description, error, onRemove, children }: { label: string; description: ReactNode; error: string | undefined; onRemove?: () => void; children: ReactNode }) {
  const id = useId();
  return (
    <section aria-labelledby={id}>
      <Group justify="space-between" wrap="nowrap" gap="xs" mb={6} align="flex-start">
        <div>
          <Text id={id} size="sm" fw={600}>
            {label}
          </Text>
          <Text size="xs" className="muted" component="div">
            {description}
          </Text>
          {error && (
            <Text size="xs" c="var(--mp-bad)" role="alert">
              {error}
            </Text>
          )}
        </div>
        {onRemove && (
          <ActionIcon aria-label={`Remove ${label}`} onClick={onRemove}>
            <IconX size={16} />
          </ActionIcon>
        )}
      </Group>
      <div className="setting">{children}</div>
    </section>
  );
}

// What a setting begins with when it is added: enough to show its controls.
function startOf(model: Model, s: Schema): Json | undefined {
  const schema = resolve(model, s);
  if (schema.properties) return {};
  if (schema.type === "array") return resolve(model, schema.items ?? {}).properties ? [{}] : [];
  if (schema.type === "boolean") return true;
  if (schema.type === "object") return {};
  return undefined;
}

/** The settings that are not shown, each with what it is for, to choose one of. */
function AddSetting({ schema, names, onAdd }: { schema: Schema; names: string[]; onAdd: (name: string) => void }) {
  const [q, setQ] = useState("");
  const box = useCombobox({
    onDropdownOpen: () => box.focusSearchInput(),
    onDropdownClose: () => {
      box.resetSelectedOption();
      box.focusTarget();
      setQ("");
    },
  });
  const fit = names.filter((n) => `${n} ${labelOf(n)} ${schema.properties?.[n]?.description ?? ""}`.toLowerCase().includes(q.toLowerCase()));
  return (
    <div>
      <Combobox
        store={box}
        position="bottom-start"
        width="min(400px, calc(100vw - 48px))"
        shadow="md"
        withinPortal={false}
        onOptionSubmit={(n) => {
          onAdd(n);
          box.closeDropdown();
        }}
      >
        <Combobox.Target withAriaAttributes={false}>
          <Button variant="subtle" size="compact-sm" leftSection={<IconPlus size={14} />} onClick={() => box.toggleDropdown()} aria-expanded={box.dropdownOpened}>
            Add a setting
          </Button>
        </Combobox.Target>
        <Combobox.Dropdown>
          <Combobox.Search placeholder="Search" aria-label="Search the settings" value={q} onChange={(e) => { setQ(e.currentTarget.value); box.updateSelectedOptionIndex(); }} />
          <Combobox.Options mah={320} style={{ overflowY: "auto" }} aria-label="Settings" tabIndex={0}>
            {fit.map((n) => (
              <Combobox.Option value={n} key={n}>
                <Text size="sm" fw={600}>{labelOf(n)}</Text>
                <Text size="xs" className="muted" lineClamp={2}>{firstSentence(plain(schema.properties?.[n]?.description))}</Text>
              </Combobox.Option>
            ))}
            {fit.length === 0 && <Combobox.Empty>None is like this</Combobox.Empty>}
          </Combobox.Options>
        </Combobox.Dropdown>
      </Combobox>
    </div>
  );
}

/** The settings of an object: those that are set, required or usual, and a menu of the others. */
export function Fields({ schema, value, onChange, path, usual, hides }: { schema: Schema; value: Spec; onChange: (v: Spec) => void; path: string; usual?: string[] | undefined; hides?: string[] | undefined }) {
  const { model, readOnly } = useForm();
  const [opened, setOpened] = useState<string[]>([]);
  const all = Object.entries(schema.properties ?? {}).filter(([n, s]) => !/Written by the server\.$/.test(s.description ?? "") && !hides?.includes(n)).map(([n]) => n);
  const scalar = (n: string) => {
    const s = resolve(model, schema.properties?.[n] ?? {});
    return !s.properties && s.type !== "array" && s.type !== "object";
  };
  const isShown = (n: string) => (all.length <= 4 && scalar(n)) || value[n] !== undefined || schema.required?.includes(n) || usual?.includes(n) || opened.includes(n);
  const shown = [...(usual ?? []).filter((n) => all.includes(n)), ...all.filter((n) => !usual?.includes(n))].filter(isShown);
  const hidden = all.filter((n) => !isShown(n));
  const set = (n: string, v: Json | undefined) => {
    const next = { ...value };
    if (v === undefined) delete next[n];
    else next[n] = v;
    if (v === undefined) setOpened((o) => o.filter((x) => x !== n));
    onChange(next);
  };
  // Fields stay on screen while they are emptied: only those that were opened by hand go when they are removed.
  const keep = (n: string, v: Json | undefined) => {
    if (v === undefined && !resolve(model, schema.properties?.[n] ?? {}).properties) setOpened((o) => (o.includes(n) ? o : [...o, n]));
    const next = { ...value };
    if (v === undefined) delete next[n];
    else next[n] = v;
    onChange(next);
  };
  const small = (n: string) => {
    const s = resolve(model, schema.properties?.[n] ?? {});
    return s.type === "integer" || s.type === "number" || (s.type === "string" && ((s.maxLength ?? 999) <= 253 || !!s.enum));
  };
  // In a list's items, host and port stand beside each other.
  const row = path.endsWith("]") ? shown.filter(small) : [];
  const rest = shown.filter((n) => !row.includes(n));
  const field = (n: string) => {
    const sub = schema.properties?.[n];
    if (!sub) return null;
    const r = resolve(model, sub);
    const removable = !!r.properties || (r.type === "array" && !!resolve(model, r.items ?? {}).properties);
    return <Field key={n} name={n} schema={sub} parent={schema} value={value[n]} onChange={(v) => (removable ? set(n, v) : keep(n, v))} path={`${path}.${n}`} />;
  };
  return (
    <Stack gap="lg">
      {row.length > 0 && (
        <div style={{ display: "grid", gap: 14, gridTemplateColumns: "repeat(auto-fit, minmax(min(200px, 100%), 1fr))", alignItems: "start" }}>{row.map(field)}</div>
      )}
      {rest.map(field)}
      {hidden.length > 0 && !readOnly && (
        <AddSetting
          schema={schema}
          names={hidden}
          onAdd={(n) => {
            setOpened((o) => [...o, n]);
            const start = startOf(model, schema.properties?.[n] ?? {});
            if (start !== undefined) set(n, start);
          }}
        />
      )}
    </Stack>
  );
}

/** A form of a whole spec. */
export function SchemaForm({ model, schema, value, onChange, errors, readOnly, usual, hides }: { model: Model; schema: Schema; value: Spec; onChange: (v: Spec) => void; errors: Violation[]; readOnly: boolean; usual?: string[] | undefined; hides?: string[] | undefined }) {
  return (
    <Context.Provider value={{ model, errors, readOnly }}>
      <fieldset disabled={readOnly} style={{ border: 0, padding: 0, margin: 0, minWidth: 0 }}>
        <Fields schema={schema} value={value} onChange={onChange} path="$.spec" usual={usual} hides={hides} />
      </fieldset>
    </Context.Provider>
  );
}

export function LabelsForm({ model, value, onChange, readOnly }: { model: Model; value: Record<string, string> | undefined; onChange: (v: Record<string, string> | undefined) => void; readOnly: boolean }) {
  return (
    <Context.Provider value={{ model, errors: [], readOnly }}>
      <Pairs
        value={value}
        onChange={(v) => onChange(v as Record<string, string> | undefined)}
        common={{ label: "Labels", description: "Your own words, to filter by. They change nothing at the Envoys.", error: undefined, required: false, withAsterisk: false }}
      />
    </Context.Provider>
  );
}
