//! Retries that hold up no other event.
