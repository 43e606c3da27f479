//! Why a request may pass or not.

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $status:literal $label:literal,)*) => {
        /// Why a request may pass (status 0), or with what status it is refused.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Reason { $($(#[$doc])* $name,)* }

        impl Reason {
            /// All of them, in the order of their numbers.
            pub const ALL: &[Reason] = &[$(Reason::$name,)*];

            /// The status for the client; 0 lets the request pass.
            pub fn status(self) -> u32 {
                match self { $(Reason::$name => $status,)* }
            }

            /// The name in metrics and access logs.
            pub fn label(self) -> &'static str {
                match self { $(Reason::$name => $label,)* }
            }
        }
    };
}

reasons! {
    /// No policy for this route.
    NoPolicy = 0 "no_policy",
    /// The path needs no credentials.
    Exempt = 0 "exempt",
    /// A token whose signature and claims hold.
    Jwt = 0 "jwt",
    /// The same, seen before.
    JwtCached = 0 "jwt_cached",
    /// A known opaque token.
    Opaque = 0 "opaque",
    /// No Authorization header.
    Missing = 401 "missing",
    /// More than one Authorization header.
    Ambiguous = 401 "ambiguous",
    /// Another scheme than `Bearer`.
    Scheme = 401 "scheme",
    /// Longer than any token may be.
    TooLong = 401 "too_long",
    /// Not one token, not three parts of Base64url, or a header that is not plain.
    Malformed = 401 "malformed",
    /// The header names a key that the policy does not have.
    UnknownKey = 401 "unknown_key",
    /// The header names another algorithm than the key's.
    Algorithm = 401 "algorithm",
    /// The signature is not that of the token.
    Signature = 401 "signature",
    /// Signed, but no JSON object, or a claim has the wrong type.
    Claims = 401 "claims",
    /// No `exp`.
    NoExpiry = 401 "no_expiry",
    /// Past `exp`.
    Expired = 401 "expired",
    /// Before `nbf`.
    NotYet = 401 "not_yet",
    /// `iat` lies in the future.
    IssuedLater = 401 "issued_later",
    /// Another issuer.
    Issuer = 401 "issuer",
    /// Not for this audience.
    Audience = 401 "audience",
    /// Another type of token.
    Type = 401 "type",
    /// An opaque token that nobody knows, or one past its end.
    UnknownToken = 401 "unknown_token",
    /// A required claim is missing or has another value.
    ClaimRequired = 403 "claim_required",
    /// A claim to forward cannot be a header's value.
    ClaimForward = 403 "claim_forward",
    /// The route names a policy that is not configured.
    UnknownPolicy = 503 "unknown_policy",
    /// The host refused a call, or there is no configuration.
    Unavailable = 503 "unavailable",
}

impl Reason {
    /// Whether the request brought nothing that could be judged: RFC 6750 §3.1 counts a scheme that is not
    /// supported among that.
    pub fn without_credentials(self) -> bool {
        matches!(self, Reason::Missing | Reason::Scheme)
    }

    /// What the client is told: no more than it needs to help itself.
    pub fn public(self) -> &'static str {
        match self {
            _ if self.without_credentials() => "missing_credentials",
            Reason::Expired => "expired_token",
            _ => match self.status() {
                401 => "invalid_token",
                403 => "insufficient_claims",
                _ => "unavailable",
            },
        }
    }
}
