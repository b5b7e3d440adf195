//! The attested API: what a guest answers to whoever reaches it (architecture decision 13).

pub mod key;
