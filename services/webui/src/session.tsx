import { Button, PasswordInput, Stack, Text, Title } from "@mantine/core";
import { queryOptions, useQuery, useQueryClient } from "@tanstack/react-query";
import { useState, type FormEvent } from "react";
import { ApiError, client, take, type Session } from "~/api/client";
import { ErrorNote, Note, useTitle } from "~/ui/bits";

/** Who is signed in; null for nobody. */
export const sessionQuery = queryOptions({
  queryKey: ["session"],
  queryFn: async (): Promise<Session | null> => {
    try {
      return await take(client.GET("/v1/session"));
    } catch (e) {
      if (e instanceof ApiError && e.status === 401) return null;
      throw e;
    }
  },
  staleTime: Infinity,
});

export const useSession = () => useQuery(sessionQuery).data ?? undefined;

export async function signOut() {
  await take(client.DELETE("/v1/session"));
  location.assign("/ui/"); // nothing of what was read stays in this page
}

export const Logo = ({ size = 30 }: { size?: number }) => <img src="/ui/icon.svg" width={size} height={size} alt="" />;

/** Exchanges a token for a session. The token stays in this form, and leaves the page with it. */
export function SignIn() {
  useTitle("Sign in");
  const cache = useQueryClient();
  const [token, setToken] = useState("");
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<unknown>();
  const [dropped, setDropped] = useState(false);

  const submit = async (e: FormEvent) => {
    e.preventDefault();
    setBusy(true);
    setError(undefined);
    setDropped(false);
    try {
      await take(client.POST("/v1/session", { body: { token: token.trim() } }));
      const who = await cache.fetchQuery({ ...sessionQuery, staleTime: 0 });
      setDropped(!who);
    } catch (e) {
      setError(e);
    }
    setBusy(false);
  };

  return (
    <main className="signin">
      <form onSubmit={(e) => void submit(e)} className="card" style={{ width: "100%", maxWidth: 420, padding: 32 }}>
        <Stack gap="md">
          <Stack gap={6} align="flex-start">
            <Logo size={40} />
            <Title order={1} mt="xs">
              Sign in to MarchProxy
            </Title>
            <Text size="sm" className="muted">
              With a token of the API. This browser stays signed in for twelve hours.
            </Text>
          </Stack>
          {error !== undefined && (
            error instanceof ApiError && error.status === 401 ? (
              <Note tone="bad" title="This token opens nothing">
                <Text size="sm">{error.message}</Text>
              </Note>
            ) : (
              <ErrorNote error={error} />
            )
          )}
          {dropped && (
            <Note tone="warn" title="The browser did not keep the session">
              <Text size="sm">
                It keeps one over HTTPS, or on this machine (http://localhost), and this page came over {location.protocol}//
                {location.host}. Open it by HTTPS.
              </Text>
            </Note>
          )}
          <PasswordInput
            label="Token"
            placeholder="mp_…"
            value={token}
            onChange={(e) => setToken(e.currentTarget.value)}
            autoComplete="current-password"
            name="token"
            required
            withAsterisk={false}
            autoFocus
          />
          <Button type="submit" loading={busy} disabled={!token.trim()} fullWidth>
            Sign in
          </Button>
          <Text size="xs" className="muted">
            On the machine where <span className="mono">make run</span> runs, <span className="mono">bin/marchproxy token print</span>{" "}
            prints one. Elsewhere the api printed the first token in its log when it first started.
          </Text>
        </Stack>
      </form>
    </main>
  );
}
