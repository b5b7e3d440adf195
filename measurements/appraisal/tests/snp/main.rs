//! SEV-SNP: genuine reports of four kinds of chips, what is refused and by which check, and every way to change a genuine
//! report or certificate a little.

#[path = "../common/snp.rs"]
mod pki;

mod bundle;
mod differential;
mod genuine;
mod mutants;
mod refused;
mod vectors;
