import { createRootRoute, createRoute, createRouter, lazyRouteComponent, Outlet } from "@tanstack/react-router";
import { NotFound, Shell } from "./shell";
import { Overview } from "./pages/overview";

const word = (v: unknown) => (typeof v === "string" && v !== "" ? v : typeof v === "number" ? String(v) : undefined);
const pick =
  <K extends string>(...names: K[]) =>
  (search: Record<string, unknown>) => {
    const out: Partial<Record<K, string>> = {};
    for (const n of names) {
      const v = word(search[n]);
      if (v !== undefined) out[n] = v;
    }
    return out;
  };

const root = createRootRoute({ component: () => <Shell><Outlet /></Shell>, notFoundComponent: NotFound });
const overview = createRoute({ getParentRoute: () => root, path: "/", component: Overview });
const revisions = createRoute({
  getParentRoute: () => root,
  path: "/revisions",
  validateSearch: pick("actor", "object", "a", "b"),
  component: lazyRouteComponent(() => import("./pages/revisions"), "Revisions"),
});
const revision = createRoute({
  getParentRoute: () => root,
  path: "/revisions/$revision",
  component: lazyRouteComponent(() => import("./pages/revisions"), "RevisionPage"),
});
const audit = createRoute({
  getParentRoute: () => root,
  path: "/audit",
  validateSearch: pick("kind", "object", "actor"),
  component: lazyRouteComponent(() => import("./pages/audit"), "Audit"),
});
const envoys = createRoute({
  getParentRoute: () => root,
  path: "/envoys",
  validateSearch: pick("q", "state", "sort", "id"),
  component: lazyRouteComponent(() => import("./pages/envoys"), "Envoys"),
});
const nodes = createRoute({
  getParentRoute: () => root,
  path: "/nodes",
  component: lazyRouteComponent(() => import("./pages/nodes"), "Nodes"),
});
const account = createRoute({
  getParentRoute: () => root,
  path: "/account",
  component: lazyRouteComponent(() => import("./pages/account"), "AccountPage"),
});
const users = createRoute({
  getParentRoute: () => root,
  path: "/users",
  component: lazyRouteComponent(() => import("./pages/users"), "Users"),
});
const topology = createRoute({
  getParentRoute: () => root,
  path: "/topology",
  validateSearch: pick("q"),
  component: lazyRouteComponent(() => import("./pages/topology"), "Topology"),
});
const publish = createRoute({
  getParentRoute: () => root,
  path: "/publish",
  component: lazyRouteComponent(() => import("./pages/publish"), "Publish"),
});
const tryIt = createRoute({
  getParentRoute: () => root,
  path: "/try",
  validateSearch: pick("gateway", "listener", "scheme", "method", "host", "path", "source", "headers"),
  component: lazyRouteComponent(() => import("./pages/try"), "TryPage"),
});
const accessLog = createRoute({
  getParentRoute: () => root,
  path: "/access-log",
  validateSearch: pick("host", "path", "route", "status", "method", "gateway", "proxy"),
  component: lazyRouteComponent(() => import("./pages/accesslog"), "AccessLog"),
});
const kindList = createRoute({
  getParentRoute: () => root,
  path: "/$kind",
  validateSearch: pick("q", "owner", "state", "sort", "service"),
  component: lazyRouteComponent(() => import("./pages/list"), "KindList"),
});
// A name cannot be a hyphen, so that no object is in the way of this path.
const create = createRoute({
  getParentRoute: () => root,
  path: "/$kind/-/new",
  validateSearch: pick("from"),
  component: lazyRouteComponent(() => import("./pages/object"), "NewObject"),
});
const object = createRoute({
  getParentRoute: () => root,
  path: "/$kind/$name",
  validateSearch: pick("tab"),
  component: lazyRouteComponent(() => import("./pages/object"), "ObjectPage"),
});

export const router = createRouter({
  routeTree: root.addChildren([overview, revisions, revision, audit, envoys, nodes, account, users, topology, publish, tryIt, accessLog, kindList, create, object]),
  basepath: "/ui",
  defaultPreload: "intent",
  scrollRestoration: true,
});

declare module "@tanstack/react-router" {
  interface Register {
    router: typeof router;
  }
}
