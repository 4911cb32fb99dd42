//! Objects held in memory, in sync with the stream.
