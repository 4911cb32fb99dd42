//! The queue-trigger pattern: triggers, caches, steps, retries, dead letters, tickets.
