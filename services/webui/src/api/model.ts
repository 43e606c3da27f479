import { queryOptions } from "@tanstack/react-query";
import { client, take } from "./client";

/** The part of JSON Schema that the API's document uses. */
export type Schema = {
  $ref?: string;
  type?: string;
  title?: string;
  description?: string;
  properties?: Record<string, Schema>;
  required?: string[];
  items?: Schema;
  additionalProperties?: boolean | Schema;
  enum?: (string | number)[];
  anyOf?: Schema[];
  oneOf?: Schema[];
  pattern?: string;
  format?: string;
  minimum?: number;
  maximum?: number;
  exclusiveMinimum?: number;
  minLength?: number;
  maxLength?: number;
  minItems?: number;
  maxItems?: number;
  default?: unknown;
  writeOnly?: boolean;
  readOnly?: boolean;
};

export type Kind = {
  /** Route */
  name: string;
  /** routes */
  path: string;
  /** Routes */
  plural: string;
  /** route */
  word: string;
  description: string;
  /** The role that writing one needs. */
  role: string;
  spec: Schema;
};

export type Model = { kinds: Kind[]; byPath: Map<string, Kind>; byName: Map<string, Kind>; schemas: Record<string, Schema> };

type Document = {
  paths: Record<string, Record<string, { operationId: string; security?: Record<string, string[]>[] }>>;
  components: { schemas: Record<string, Schema> };
};

const words = (path: string) => path.split("-").join(" ");
const capital = (s: string) => s.charAt(0).toUpperCase() + s.slice(1);
export const firstSentence = (text: string) => /^.*?[.;](?=\s|$)/s.exec(text)?.[0].replace(/;$/, ".") ?? text;
export const singular = (s: string) => (s.endsWith("ies") ? `${s.slice(0, -3)}y` : s.replace(/s$/, ""));

// Kinds come in the order of the document's paths; what people open most stands first.
const first = ["routes", "services", "endpoint-sets", "locality-drains", "gateways", "certificates", "certificate-issuers", "auth-policies", "rate-limit-policies"];
const place = (path: string) => (first.indexOf(path) + 100) % 100 || (first[0] === path ? 0 : 99);

/** Reads the kinds out of the API's own document, so that a kind that is added has its pages without a line here. */
export function modelOf(doc: Document): Model {
  const kinds: Kind[] = [];
  for (const [path, item] of Object.entries(doc.paths)) {
    const match = /^\/v1\/([a-z-]+)\/\{name\}$/.exec(path);
    const put = item["put"];
    const name = put?.operationId.replace(/^put/, "");
    const spec = name && doc.components.schemas[`${name}Spec`];
    if (!match?.[1] || !put || !name || !spec) continue;
    kinds.push({
      name,
      path: match[1],
      plural: capital(words(match[1])),
      word: singular(words(match[1])),
      description: (spec.description ?? "").split("\n\n")[0] ?? "",
      role: put.security?.[0]?.["token"]?.[0] ?? "admin",
      spec,
    });
  }
  kinds.sort((a, b) => place(a.path) - place(b.path) || a.path.localeCompare(b.path));
  return {
    kinds,
    byPath: new Map(kinds.map((k) => [k.path, k])),
    byName: new Map(kinds.map((k) => [k.name, k])),
    schemas: doc.components.schemas,
  };
}

export const modelQuery = queryOptions({
  queryKey: ["model"],
  queryFn: async () => modelOf((await take(client.GET("/v1/openapi.json"))) as unknown as Document),
  staleTime: Infinity,
});

/** The schema that a reference names. */
export function resolve(model: Model, s: Schema): Schema {
  for (let i = 0; s.$ref && i < 8; i++) {
    const found = model.schemas[s.$ref.replace("#/components/schemas/", "")];
    if (!found) return s;
    s = { ...found, ...(s.description ? { description: s.description } : {}) };
  }
  return s;
}

const roles = ["viewer", "editor", "operator", "admin"];
/** Whether a role may do what needs another. */
export const mayAs = (role: string | undefined, needed: string) => roles.indexOf(role ?? "") >= roles.indexOf(needed);
