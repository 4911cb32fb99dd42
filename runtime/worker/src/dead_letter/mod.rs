//! Dead letters and tickets.
