package store

// Query is the statement of a page, for EXPLAIN.
func (f Filter) Query() (sql string, args []any) { return f.query() }

// Query is the same for the audit.
func (f AuditFilter) Query() (sql string, args []any) { return f.query() }
