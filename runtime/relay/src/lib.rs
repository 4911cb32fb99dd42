//! Change capture: from PostgreSQL's logical decoding to JetStream, each change exactly once.
