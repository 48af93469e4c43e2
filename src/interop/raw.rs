//! Raw pointers and streams.
