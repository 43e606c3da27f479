package resource

// MissingSecret is the rule that is broken where a secret is needed that neither a write nor what is stored
// has. Reads and exports do not show secrets, so that what comes from another place lacks them.
const MissingSecret = "secret.missing"
