//! The existing network as it is today, for profiles whose protocol is `legacy`; never in a production build.
//!
//! Its coordinator verifies nothing of what a node says, and nobody can verify what it says: a request carries an EIP-191
//! signature over body and time, attestation is an HMAC with a published key, prompt keys come from CoFHE alone, verdicts
//! carry no proof. What the guest does all the same: keys, prompts and answers stay in vault and engine, blobs are checked
//! against their CIDs, each job is done once, and what the vault signs has one of the closed forms of [`frames::Request`]. But
//! whose job it is, the vault knows from the courier alone: one that was taken over can have the key of an answer stored for
//! another account, and sees it itself where inputs are `clear`.
//!
//! ```text
//! challenge → mock quote → expiry    assignments → claim → two sealed halves → prompt → answer
//!     leader:   sealed answer → pin → output key → verify → storeKey → result
//!     verifier: the leader's CID → its blob → verdict
//! ```

pub mod frames;
pub mod mock;
pub mod wire;

pub(crate) mod job;
