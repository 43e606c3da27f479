import createClient from "openapi-fetch";
import type { components, paths } from "./schema";

/**
 * An answer, as it is sent. The document does not say of a field that it is always there, though most are; what may be left
 * out because it is empty is looked at with ?. all the same.
 */
type Whole<T> = T extends (infer U)[] ? Whole<NonNullable<U>>[] : T extends object ? { [K in keyof T]-?: Whole<NonNullable<T[K]>> } : T;
export type Schemas = { [K in keyof components["schemas"]]: Whole<components["schemas"][K]> };
export type Problem = Schemas["Problem"];
export type Status = Schemas["Status"];
export type LiveStatus = Schemas["LiveStatus"];
export type Change = Schemas["Change"];
export type ApplyResult = Schemas["ApplyResult"];
export type Warning = Schemas["Warning"];
export type Violation = Schemas["Violation"];
export type Proxy = Schemas["Proxy"];
export type Revision = Schemas["Revision"];
export type AuditEntry = Schemas["AuditEntry"];
export type Session = Schemas["Session"];
export type Explanation = Schemas["Explanation"];
export type User = Schemas["User"];
export type Token = Schemas["Token"];
export type TokenBounds = Schemas["TokenBounds"];
export type Rejection = Schemas["Rejection"];
export type Issuance = components["schemas"]["CertificateIssuance"];

export type Json = null | boolean | number | string | Json[] | { [name: string]: Json };
export type Spec = { [name: string]: Json };

/** An object of any kind; the kinds differ in their spec alone. */
export type Item = Omit<components["schemas"]["Route"], "spec" | "name" | "kind" | "status" | "warnings"> & {
  kind: string;
  name: string;
  spec: Spec;
  status?: { state: string; reason?: string; issuance?: Issuance };
  warnings?: Warning[];
};
export type ItemList = { items: Item[]; next_cursor?: string; revision: number };

/** What the API answers in place of what was asked for (RFC 9457). */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    readonly problem: Problem,
  ) {
    super(problem.detail || problem.title || `status ${status}`);
  }
  get errors(): Violation[] {
    return this.problem.errors ?? [];
  }
}

const problem = (status: number, detail: string): Problem => ({ type: "about:blank", title: detail, status, detail, request_id: "", errors: [], current_etag: "" });

export const client = createClient<paths>({ credentials: "same-origin" });

type Answer<T> = Promise<{ data?: T; error?: unknown; response: Response }>;

/** The answer's body, or an ApiError. */
export async function take<T>(answer: Answer<T>): Promise<Whole<T>> {
  let got: Awaited<Answer<T>>;
  try {
    got = await answer;
  } catch {
    throw new ApiError(0, problem(0, "The API does not answer."));
  }
  if (got.response.ok) return got.data as Whole<T>;
  const p = got.error;
  throw new ApiError(
    got.response.status,
    typeof p === "object" && p !== null && "title" in p
      ? (p as Problem)
      : problem(got.response.status, got.response.statusText),
  );
}

// Operations of the kinds are the same for each; Route stands for all of them in the types.
const list = (kind: string) => `/v1/${kind}` as "/v1/routes";
const one = (kind: string) => `/v1/${kind}/{name}` as "/v1/routes/{name}";

export type WriteOptions = {
  etag?: string;
  fresh?: boolean;
  dryRun?: boolean;
  takeOver?: boolean;
  message?: string;
};

const query = (o: WriteOptions) => ({
  ...(o.dryRun && { dry_run: "true" as const }),
  ...(o.takeOver && { take_over: "true" as const }),
  ...(o.message && { message: o.message }),
});
const headers = (o: WriteOptions) => ({
  ...(o.etag && !o.fresh && { "If-Match": o.etag }),
  ...(o.fresh && { "If-None-Match": "*" }),
});

export type Draft = { spec: Spec; labels?: Record<string, string>; owner?: string };

export const objects = {
  list: (kind: string, params: { limit?: number; cursor?: string; q?: string; service?: string; host?: string } = {}) =>
    take(client.GET(list(kind), { params: { query: params as never } })) as Promise<unknown> as Promise<ItemList>,
  get: (kind: string, name: string) =>
    take(client.GET(one(kind), { params: { path: { name } } })) as Promise<unknown> as Promise<Item>,
  put: (kind: string, name: string, draft: Draft, o: WriteOptions = {}) =>
    take(
      client.PUT(one(kind), {
        params: { path: { name }, query: query(o) as never, header: headers(o) as never },
        body: draft as never,
      }),
    ) as Promise<unknown>,
  remove: (kind: string, name: string, o: WriteOptions = {}) =>
    take(
      client.DELETE(one(kind), { params: { path: { name }, query: query(o) as never, header: headers(o) as never } }),
    ) as Promise<unknown> as Promise<ApplyResult>,
};

export const etagOf = (revision: number | undefined) => `"${revision ?? 0}"`;
