import { Anchor, Button, Center, Divider, Loader, PasswordInput, Stack, Text, TextInput, Title } from "@mantine/core";
import { queryOptions, useQuery, useQueryClient } from "@tanstack/react-query";
import { useEffect, useState, type FormEvent } from "react";
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

const waysQuery = queryOptions({ queryKey: ["sign-in ways"], queryFn: () => take(client.GET("/v1/session/ways")), staleTime: Infinity });

/** What the provider's door says of why nobody was let in. */
const refusals: Record<string, string> = {
  unavailable: "The provider does not answer. Try again, or sign in another way.",
  expired: "The answer was not for a sign-in that this browser had begun within ten minutes. Try again.",
  invalid: "What the provider answered is not valid, so that nobody was let in. The api's log says why.",
  "no-role": "None of your groups has a role here. Whoever runs this MarchProxy says which groups have one.",
  disabled: "Your user is disabled here.",
  name: "Somebody else here has the name that the provider calls you by. An admin has to delete or rename one of the two.",
  denied: "The provider has not let you in.",
  slowed: "Too many attempts have come from your address. Wait a little, and try again.",
};

/** Exchanges a password or a token for a session. Both stay in this form, and leave the page with it. */
export function SignIn() {
  useTitle("Sign in");
  const ways = useQuery(waysQuery);
  const cache = useQueryClient();
  const [chosen, choose] = useState<"password" | "token">();
  const [name, setName] = useState("");
  const [secret, setSecret] = useState("");
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<unknown>();
  const [dropped, setDropped] = useState(false);
  const [refused] = useState(() => new URLSearchParams(location.search).get("sign_in"));
  useEffect(() => {
    if (refused !== null) history.replaceState(null, "", location.pathname); // said once
  }, [refused]);

  if (ways.isPending)
    return (
      <Center h="100dvh">
        <Loader aria-label="Loading" />
      </Center>
    );
  const some = ways.data?.password ?? false;
  const how = chosen ?? (some ? "password" : "token");

  const submit = async (e: FormEvent) => {
    e.preventDefault();
    setBusy(true);
    setError(undefined);
    setDropped(false);
    try {
      if (how === "password") await take(client.POST("/v1/session/password", { body: { name: name.trim(), password: secret } }));
      else await take(client.POST("/v1/session", { body: { token: secret.trim() } }));
      const who = await cache.fetchQuery({ ...sessionQuery, staleTime: 0 });
      setDropped(!who);
    } catch (e) {
      setError(e);
    }
    setBusy(false);
  };
  const change = (to: "password" | "token") => {
    choose(to);
    setSecret("");
    setError(undefined);
  };

  return (
    <main className="signin">
      <div className="card" style={{ width: "100%", maxWidth: 420, padding: 32 }}>
        <Stack gap="md">
          <Stack gap={6} align="flex-start">
            <Logo size={40} />
            <Title order={1} mt="xs">
              Sign in to MarchProxy
            </Title>
            <Text size="sm" className="muted">
              {how === "token" ? "With a token of the API. " : ""}This browser stays signed in for twelve hours.
            </Text>
          </Stack>
          {refused !== null && error === undefined && (
            <Note tone="bad" title="You are not signed in">
              <Text size="sm">{refusals[refused] ?? "Signing in failed. The api's log says why."}</Text>
            </Note>
          )}
          {error !== undefined && (
            error instanceof ApiError && error.status === 401 ? (
              <Note tone="bad" title={how === "token" ? "This token opens nothing" : "That is not right"}>
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
          {ways.data?.provider && (
            <>
              <Button component="a" href="/v1/session/oidc" variant="default" fullWidth>
                Sign in with {ways.data.provider}
              </Button>
              <Divider label="or" labelPosition="center" />
            </>
          )}
          <form onSubmit={(e) => void submit(e)} key={how}>
            <Stack gap="md">
              {how === "password" && (
                <TextInput label="User" value={name} onChange={(e) => setName(e.currentTarget.value)} autoComplete="username" name="user" autoCapitalize="none" spellCheck={false} required withAsterisk={false} autoFocus />
              )}
              <PasswordInput
                label={how === "password" ? "Password" : "Token"}
                placeholder={how === "password" ? "" : "mp_…"}
                value={secret}
                onChange={(e) => setSecret(e.currentTarget.value)}
                autoComplete="current-password"
                name={how}
                required
                withAsterisk={false}
                autoFocus={how === "token"}
              />
              <Button type="submit" loading={busy} disabled={!secret.trim() || (how === "password" && !name.trim())} fullWidth>
                Sign in
              </Button>
            </Stack>
          </form>
          {how === "token" && (
            <Text size="xs" className="muted">
              On the machine where <span className="mono">make run</span> runs, <span className="mono">bin/marchproxy token print</span>{" "}
              prints one. Elsewhere the api printed the first token in its log when it first started.
            </Text>
          )}
          {(some || how === "password") && (
            <Anchor component="button" type="button" size="sm" className="link" onClick={() => change(how === "token" ? "password" : "token")}>
              {how === "token" ? "Use a password" : "Use a token"}
            </Anchor>
          )}
        </Stack>
      </div>
    </main>
  );
}
