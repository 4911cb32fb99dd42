//! A PostgreSQL and a nats-server of one's own, started from what is installed.
