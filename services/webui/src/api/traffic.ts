import { queryOptions } from "@tanstack/react-query";
import { client, take } from "./client";

/** What the Envoys and the kernels have done in the last minutes. No event says that it is another: it is asked for. */
export const trafficQuery = queryOptions({
  queryKey: ["traffic"],
  queryFn: () => take(client.GET("/v1/metrics/summary")),
  refetchInterval: 10_000,
  staleTime: 5_000,
});

export const healthQuery = (service: string) =>
  queryOptions({
    queryKey: ["health", service],
    queryFn: () => take(client.GET("/v1/services/{name}/health", { params: { path: { name: service } } })),
    refetchInterval: 10_000,
    staleTime: 5_000,
  });

const words: Record<string, string> = {
  health_check: "fails its health check",
  health_check_timeout: "does not answer its health check in time",
  not_checked_yet: "has not been checked yet",
  ejected: "was ejected after errors",
};
/** Why an endpoint gets no requests. */
export const whyUnhealthy = (reason: string) => words[reason] ?? reason.replace(/_/g, " ");
