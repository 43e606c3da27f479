package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/marchproxy/marchproxy/pkg/audit"
	"github.com/marchproxy/marchproxy/services/api/internal/auth"
)

// UserRow is a user.
type UserRow struct {
	auth.Identity
	// Password is the hash; "" opens nothing.
	Password string
	// Issuer and Subject name him at the provider that he comes from; both are "" for who has a password.
	Issuer, Subject string
	Disabled        bool
	CreatedAt       time.Time
	// ChangedAt is when his password, role, bounds or being disabled were changed last.
	ChangedAt time.Time
	// SignedInAt is zero for never.
	SignedInAt time.Time
	// Sessions and Tokens are how many he has.
	Sessions, Tokens int
}

// ErrUserExists says that a user or a token has the name already.
var ErrUserExists = errors.New("a user or a token of this name exists already; choose another name")

// ErrNoRole says that the provider names no group of a user that has a role here, and ErrDisabled that he is disabled.
var (
	ErrNoRole   = errors.New("none of the user's groups has a role here")
	ErrDisabled = errors.New("the user is disabled")
)

const selectUser = `SELECT u.id::text, u.name, u.role, u.bounds, u.password, u.issuer, u.subject, u.disabled, ` +
	`u.created_at, u.changed_at, u.signed_in_at, ` +
	`(SELECT count(*) FROM sessions s WHERE s.user_id = u.id AND s.expires_at > now()), ` +
	`(SELECT count(*) FROM tokens t WHERE t.user_id = u.id) FROM users u`

func scanUser(row pgx.CollectableRow) (u UserRow, err error) {
	var signed *time.Time
	u.User = true
	err = row.Scan(&u.ID, &u.Name, &u.Role, &u.Bounds, &u.Password, &u.Issuer, &u.Subject, &u.Disabled, &u.CreatedAt,
		&u.ChangedAt, &signed, &u.Sessions, &u.Tokens)
	if signed != nil {
		u.SignedInAt = *signed
	}
	return u, err
}

func oneUser(ctx context.Context, db querier, where string, args ...any) (UserRow, error) {
	rows, err := db.Query(ctx, selectUser+` WHERE `+where, args...)
	if err != nil {
		return UserRow{}, err
	}
	u, err := pgx.CollectExactlyOneRow(rows, scanUser)
	if errors.Is(err, pgx.ErrNoRows) {
		err = ErrNotFound
	}
	return u, err
}

// Users lists the users by name.
func (s *Store) Users(ctx context.Context) ([]UserRow, error) {
	rows, err := s.pool.Query(ctx, selectUser+` ORDER BY u.name`)
	if err != nil {
		return nil, fmt.Errorf("list users: %w", err)
	}
	return pgx.CollectRows(rows, scanUser)
}

// User finds a user by name, or says [ErrNotFound].
func (s *Store) User(ctx context.Context, name string) (UserRow, error) {
	u, err := oneUser(ctx, s.pool, `u.name = $1`, name)
	if err != nil && !errors.Is(err, ErrNotFound) {
		err = fmt.Errorf("read user: %w", err)
	}
	return u, err
}

// Passwords says whether anybody signs in with a password.
func (s *Store) Passwords(ctx context.Context) (some bool, err error) {
	err = s.pool.QueryRow(ctx, `SELECT EXISTS (SELECT FROM users WHERE password <> '' AND NOT disabled)`).Scan(&some)
	return some, wrap("read users", err)
}

// CreateUser stores a user, whose id it sets, and its entry in the audit.
func (s *Store) CreateUser(ctx context.Context, u *UserRow, by By) error {
	err := pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error { return s.insertUser(ctx, tx, u, by) })
	return userError("create user", err)
}

func (s *Store) insertUser(ctx context.Context, tx pgx.Tx, u *UserRow, by By) error {
	if err := free(ctx, tx, "tokens", u.Name, ErrUserExists); err != nil {
		return err
	}
	u.User, u.CreatedAt = true, time.Now()
	u.ChangedAt = u.CreatedAt
	err := tx.QueryRow(ctx, `INSERT INTO users (name, role, bounds, password, issuer, subject, disabled, created_at, `+
		`changed_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $8) RETURNING id::text`, u.Name, u.Role, mustJSON(u.Bounds),
		u.Password, u.Issuer, u.Subject, u.Disabled, u.CreatedAt).Scan(&u.ID)
	if err != nil {
		return err
	}
	return s.auditUser(ctx, tx, "create", *u, saidOfUser(*u), by)
}

// userError is what is told of an error: what the caller answers stays as it is.
func userError(what string, err error) error {
	if duplicate(err) {
		return ErrUserExists
	}
	for _, known := range []error{ErrUserExists, ErrNotFound, ErrLastAdmin, ErrNoRole, ErrDisabled, errUnchanged} {
		if errors.Is(err, known) {
			return known
		}
	}
	return wrap(what, err)
}

// errUnchanged ends a transaction that has nothing to do.
var errUnchanged = errors.New("nothing is changed")

// ChangeUser changes a user as change says, which may refuse, and says how he is then. All his sessions end with
// another password, and when he is disabled; where keep is not nil, the session with that hash lives on under another
// secret, whose hash is next. What he may do is another from the next request on, at every api.
func (s *Store) ChangeUser(
	ctx context.Context, name string, change func(*UserRow) error, keep, next []byte, by By,
) (u UserRow, err error) {
	var refused error
	err = pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		if err := lockWays(ctx, tx); err != nil {
			return err
		}
		var err error
		if u, err = oneUser(ctx, tx, `u.name = $1`, name); err != nil {
			return err
		}
		before := u
		if refused = change(&u); refused != nil {
			return errUnchanged
		}
		return s.updateUser(ctx, tx, before, &u, keep, next, by)
	})
	if refused != nil {
		return u, refused
	}
	if err = userError("change user", err); errors.Is(err, errUnchanged) {
		err = nil
	}
	return u, err
}

func (s *Store) updateUser(ctx context.Context, tx pgx.Tx, before UserRow, u *UserRow, keep, next []byte, by By) error {
	said := changes(before, *u)
	if said == "" {
		return errUnchanged
	}
	u.ChangedAt = time.Now()
	if _, err := tx.Exec(ctx, `UPDATE users SET role = $2, bounds = $3, password = $4, disabled = $5, changed_at = $6 `+
		`WHERE id = $1::uuid`, u.ID, u.Role, mustJSON(u.Bounds), u.Password, u.Disabled, u.ChangedAt); err != nil {
		return err
	}
	if u.Password != before.Password || u.Disabled {
		if _, err := tx.Exec(ctx, `DELETE FROM sessions WHERE user_id = $1::uuid AND sha256 IS DISTINCT FROM $2`, u.ID,
			keep); err != nil {
			return err
		}
		if keep != nil {
			if _, err := tx.Exec(ctx, `UPDATE sessions SET sha256 = $1 WHERE sha256 = $2`, next, keep); err != nil {
				return err
			}
		}
	}
	if before.Role == auth.Admin && before.Issuer == "" {
		if err := someAdmin(ctx, tx); err != nil {
			return err
		}
	}
	return s.auditUser(ctx, tx, "update", *u, said, by)
}

// DeleteUser deletes a user with his sessions and tokens.
func (s *Store) DeleteUser(ctx context.Context, name string, by By) (u UserRow, err error) {
	err = pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		if err := lockWays(ctx, tx); err != nil {
			return err
		}
		var err error
		if u, err = oneUser(ctx, tx, `u.name = $1`, name); err != nil {
			return err
		}
		for _, table := range []string{`sessions WHERE user_id`, `tokens WHERE user_id`, `users WHERE id`} {
			if _, err := tx.Exec(ctx, `DELETE FROM `+table+` = $1::uuid`, u.ID); err != nil {
				return err
			}
		}
		if u.Role == auth.Admin && u.Issuer == "" {
			if err := someAdmin(ctx, tx); err != nil {
				return err
			}
		}
		return s.auditUser(ctx, tx, "delete", u, saidOfUser(u), by)
	})
	return u, userError("delete user", err)
}

// FromProvider says which user somebody is whom a provider has signed in, with the role that his groups have there now:
// he is made at the first time, called name, and has another role when that has changed. Somebody else who has the name
// already is another one. A role of "" is stored, too: his sessions and tokens open nothing from then on. An admin with
// bounds would be none, so who has bounds is at most an operator.
func (s *Store) FromProvider(ctx context.Context, of UserRow, name, role, requestID string) (u UserRow, err error) {
	by := By{Who: auth.System(), RequestID: requestID}
	err = pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		if err := lockWays(ctx, tx); err != nil {
			return err
		}
		var err error
		u, err = oneUser(ctx, tx, `u.issuer = $1 AND u.subject = $2`, of.Issuer, of.Subject)
		switch {
		case errors.Is(err, ErrNotFound) && role == "":
			return ErrNoRole
		case errors.Is(err, ErrNotFound):
			u = of
			u.Name, u.Role = name, role
			return s.insertUser(ctx, tx, &u, by)
		case err != nil:
			return err
		}
		if !u.Bounds.Empty() {
			role = auth.Least(role, auth.Operator)
		}
		before := u
		u.Role = role
		if err := s.updateUser(ctx, tx, before, &u, nil, nil, by); err != nil && !errors.Is(err, errUnchanged) {
			return err
		}
		if role == "" {
			_, err := tx.Exec(ctx, `DELETE FROM sessions WHERE user_id = $1::uuid`, u.ID)
			return err
		}
		return nil
	})
	switch {
	case err != nil:
		return u, userError("sign in", err)
	case u.Disabled:
		return u, ErrDisabled
	case u.Role == "":
		return u, ErrNoRole
	}
	return u, nil
}

// AuditRefused notes in the audit that sign-ins with a user's name are slowed down.
func (s *Store) AuditRefused(ctx context.Context, u UserRow, message, requestID string) error {
	err := pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		return s.auditUser(ctx, tx, "refuse", u, message, By{Who: auth.System(), RequestID: requestID})
	})
	return wrap("audit", err)
}

func (s *Store) auditUser(ctx context.Context, tx pgx.Tx, action string, u UserRow, message string, by By) error {
	return s.chainToken(ctx, tx, entryRow{
		At: time.Now(), Actor: by.Who.Name, ActorID: by.Who.ID, RequestID: by.RequestID, Message: message,
		Entry: audit.Entry{Kind: "User", Name: u.Name, Action: action},
	}, u.Role)
}

// saidOfUser is what the audit says of a user.
func saidOfUser(u UserRow) string {
	out := roleOf(u) + ", id " + u.ID
	if u.Issuer != "" {
		out += ", from " + u.Issuer + " as " + u.Subject
	}
	if u.Disabled {
		out += ", disabled"
	}
	return out + bounded(u.Bounds)
}

func roleOf(u UserRow) string {
	if u.Role == "" {
		return "no role"
	}
	return "role " + u.Role
}

// changes is what the audit says of a change; "" where there is none.
func changes(before, after UserRow) string {
	var out []string
	if before.Password != after.Password {
		out = append(out, "another password")
	}
	if before.Role != after.Role {
		out = append(out, roleOf(after)+" instead of "+roleOf(before))
	}
	if was, is := bounded(before.Bounds), bounded(after.Bounds); was != is {
		if is == "" {
			is = ", no bounds"
		}
		out = append(out, strings.TrimPrefix(is, ", "))
	}
	if before.Disabled != after.Disabled {
		if after.Disabled {
			out = append(out, "disabled")
		} else {
			out = append(out, "enabled")
		}
	}
	return strings.Join(out, ", ")
}
