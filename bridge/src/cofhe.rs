//! Keys that the CoFHE network holds: how a node asks for the two halves of a prompt key, and gives those of an answer.
//!
//! ```text
//! handle ─┐
//! permit ─┴─ POST /v2/sealoutput ─→ request id ─→ GET … ─→ Sealed ─ SealingKey ─→ Half     (high and low, at once)
//! Half, Half ─→ Key                                Key ─→ packed list ─ POST /verify ─→ [EncryptedInput; 2] ─→ chain
//! ```
//!
//! Nothing here does I/O: each step is a body to send and an answer to judge, with the delays and the budget that the
//! network's SDK keeps (0.5.1, `@cofhe/sdk`). The EIP-712 domain of a permit is an argument from the measured profile,
//! never what an RPC says. A sealed half is anonymous: who controls the threshold network's answers can choose the key,
//! but not learn another one; the tag of the blob that it opens is what finds out.

mod handle;
mod permit;
mod prefixed;
mod publish;
mod seal;
mod sealoutput;

pub use handle::{Handle, HandleError, as_number};
pub use permit::{Domain, Permission, PermitError, Sharing};
pub use publish::{
    ClearInputs, EncryptedInput, KeyPublish, NetworkKey, PublishError, SECURITY_ZONE, TfheInputs, UINT128, VERIFY_CAP,
    VERIFY_PATH, output_key_job_id, verify_answer, verify_body,
};
pub use seal::{Half, Sealed, SealingKey, UnsealError, join, seal, split};
pub use sealoutput::{Call, Inquiry, Next, SEALOUTPUT_CAP, SealOutputError};
