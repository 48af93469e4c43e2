//! The reference against what is known of it otherwise.

mod known;
