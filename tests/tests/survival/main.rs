//! A node and a network that survive: everything is killed at every stage of a job (R1), disks fill up and file
//! descriptors run out (R3), CoFHE keeps back a share. In one process, with the agent's own vault, courier and engine and the devnet over TLS on
//! its SQLite state; `docs/reliability.md` has the commands and what was measured.

mod cofhe;
mod coordinator;
mod fuse;
mod kills;
mod machine;
mod storage;
mod user;
