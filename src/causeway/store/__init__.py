"""PostgreSQL: engine, transactions, units of work, migrations, leases, the embedded server."""
