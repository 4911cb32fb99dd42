//! Planner and apply: from the wanted model to PostgreSQL schemas and JetStream streams.
