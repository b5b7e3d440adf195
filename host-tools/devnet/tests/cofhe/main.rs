//! The chain and CoFHE's services as a wallet, a node and the network's own tools meet them: encoded, signed and unsealed
//! here by other code than the devnet's.

mod chain;
mod flow;
mod net;
mod permits;
mod python;
mod threshold;
mod verifier;
