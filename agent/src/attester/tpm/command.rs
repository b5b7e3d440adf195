//! TPM 2.0 commands as bytes (Trusted Platform Module Library, Part 3), as far as a quote and credential activation need
//! them. Integers are big-endian. A response is believed only when each of its bytes is accounted for.

use std::thread;
use std::time::Duration;

use blf_evidence::tpm::{PcrSelection, Public, PublicKey};

use super::response::{Rc, Reader};
use super::{TpmFailure, Transport};

/// TPM_RH_OWNER (Part 2, 7.4).
const RH_OWNER: u32 = 0x4000_0001;
/// TPM_RH_NULL.
const RH_NULL: u32 = 0x4000_0007;
/// TPM_RS_PW: authorization by a password, here always the empty one.
const RS_PW: u32 = 0x4000_0009;
/// TPM_RH_ENDORSEMENT.
const RH_ENDORSEMENT: u32 = 0x4000_000B;

const ST_NO_SESSIONS: u16 = 0x8001;
const ST_SESSIONS: u16 = 0x8002;
const ALG_NULL: u16 = 0x0010;
const ALG_SHA256: u16 = 0x000B;
/// TPM_SE_POLICY.
const SE_POLICY: u8 = 0x01;

/// TPMA_NV (Part 2, 13.4): the owner may read, the index's own auth value may read, something was written.
const NV_OWNER_READ: u32 = 1 << 17;
const NV_AUTH_READ: u32 = 1 << 18;
const NV_WRITTEN: u32 = 1 << 29;
/// Every TPM can read that many bytes at once (PC Client Platform TPM Profile: TPM_PT_NV_BUFFER_MAX at least 512).
const NV_CHUNK: u16 = 512;
/// Largest content of an index that is read. [`blf_evidence::bundle`] takes no longer certificate.
pub(super) const NV_CAP: u16 = 4096;

/// How often a command is repeated that the TPM asked to repeat, and the pause before each.
const BUSY_ATTEMPTS: u32 = 40;
const BUSY_PAUSE: Duration = Duration::from_millis(50);

/// A primary key that the TPM made and holds.
pub(super) struct Primary {
    pub(super) handle: u32,
    pub(super) public: Public,
}

/// What TPM2_Quote returns.
pub(super) struct Quoted {
    /// TPMS_ATTEST.
    pub(super) attest: Vec<u8>,
    /// TPMT_SIGNATURE.
    pub(super) signature: Vec<u8>,
}

/// What TPM2_PCR_Read returns: at least one of the PCRs asked for, and no other.
pub(super) struct PcrValues {
    /// Changes with every change of a PCR.
    pub(super) update_counter: u32,
    /// Octets as in [`PcrSelection`].
    pub(super) select: [u8; 3],
    /// One for each bit that is set, lowest PCR first.
    pub(super) values: Vec<[u8; 32]>,
}

/// Commands to one TPM.
pub(super) struct Commands(pub(super) Box<dyn Transport + Send>);

impl Commands {
    /// TPM2_CreatePrimary in the endorsement hierarchy, without auth value.
    pub(super) fn create_primary(&mut self, template: &Public) -> Result<Primary, TpmFailure> {
        let mut parameters = vec![0, 4, 0, 0, 0, 0]; // inSensitive: no auth value, no data
        parameters.extend(template.to_sized_bytes());
        parameters.extend([0, 0]); // outsideInfo
        parameters.extend([0; 4]); // creationPCR
        let (name, handles) = ("TPM2_CreatePrimary", [RH_ENDORSEMENT]);
        let response = self.run(name, 0x131, &handles, &[password()], &parameters, true)?;
        let parse = |response: &Response| {
            let mut r = response.parameters();
            let public = r.sized("outPublic", 1024)?;
            r.sized("creationData", 1024)?;
            r.sized("creationHash", 64)?;
            r.ticket("creationTicket")?;
            let key_name = r.sized("name", 64)?;
            r.end("parameters")?;
            let public = Public::parse(public)?;
            if key_name != public.name() {
                return Err(TpmFailure::Inconsistent { what: "name of the created key and its public area" });
            }
            if !fits(&public, template) {
                return Err(TpmFailure::Inconsistent { what: "created key and its template" });
            }
            Ok(public)
        };
        match parse(&response) {
            Ok(public) => Ok(Primary { handle: response.handle, public }),
            Err(error) => {
                // A key we do not understand must not occupy one of the TPM's few slots.
                let _ = self.flush(response.handle);
                Err(error)
            }
        }
    }

    /// TPM2_FlushContext of a key or session.
    pub(super) fn flush(&mut self, handle: u32) -> Result<(), TpmFailure> {
        let response = self.run("TPM2_FlushContext", 0x165, &[], &[], &handle.to_be_bytes(), false)?;
        response.parameters().end("parameters")
    }

    /// TPM2_Quote over `selection`.
    pub(super) fn quote(
        &mut self,
        ak: u32,
        qualifying_data: [u8; 32],
        selection: PcrSelection,
    ) -> Result<Quoted, TpmFailure> {
        let mut parameters = sized(&qualifying_data);
        parameters.extend(ALG_NULL.to_be_bytes()); // inScheme: the key's own
        parameters.extend(selection.to_list_bytes());
        let response = self.run("TPM2_Quote", 0x158, &[ak], &[password()], &parameters, false)?;
        let mut r = response.parameters();
        Ok(Quoted { attest: r.sized("quoted", 1024)?.to_vec(), signature: r.rest().to_vec() })
    }

    /// TPM2_PCR_Read of some of the wanted PCRs; a TPM returns at most eight at once.
    pub(super) fn pcr_read(&mut self, wanted: PcrSelection) -> Result<PcrValues, TpmFailure> {
        let response = self.run("TPM2_PCR_Read", 0x17E, &[], &[], &wanted.to_list_bytes(), false)?;
        let mut r = response.parameters();
        let update_counter = r.u32("pcrUpdateCounter")?;
        let banks = r.u32("pcrSelectionOut.count")?;
        r.expect("pcrSelectionOut.count", 1, banks)?;
        let hash = r.u16("pcrSelectionOut.hash")?;
        r.expect("pcrSelectionOut.hash", ALG_SHA256.into(), hash.into())?;
        let octets = r.u8("pcrSelectionOut.sizeofSelect")?;
        r.expect("pcrSelectionOut.sizeofSelect", 3, octets.into())?;
        let select: [u8; 3] = r.array("pcrSelectionOut.pcrSelect")?;
        let selected: u32 = select.iter().map(|octet| octet.count_ones()).sum();
        if selected == 0 || select.iter().zip(wanted.select).any(|(got, wanted)| got & !wanted != 0) {
            return Err(TpmFailure::Inconsistent { what: "PCRs asked for and PCRs returned" });
        }
        let count = r.u32("pcrValues.count")?;
        r.expect("pcrValues.count", selected, count)?;
        let mut values = Vec::new();
        for _ in 0..count {
            let size = r.u16("pcrValues.digest")?;
            r.expect("pcrValues.digest", 32, size.into())?;
            values.push(r.array("pcrValues.digest")?);
        }
        r.end("parameters")?;
        Ok(PcrValues { update_counter, select, values })
    }

    /// TPM2_ActivateCredential in a policy session that satisfies PolicyA of the default EK templates.
    ///
    /// The secret comes back in the clear: it proves once that `ek` and `ak` share a TPM, and protects nothing afterwards.
    pub(super) fn activate_credential(
        &mut self,
        ak: u32,
        ek: u32,
        id_object: &[u8],
        encrypted_secret: &[u8],
        nonce: [u8; 32],
    ) -> Result<[u8; 32], TpmFailure> {
        let session = self.start_policy_session(nonce)?;
        let result = self.policy_secret_endorsement(session).and_then(|()| {
            let mut policy = session.to_be_bytes().to_vec();
            policy.extend([0; 5]); // no nonce; continueSession clear, so that success ends the session; no HMAC
            let parameters = [id_object, encrypted_secret].concat();
            let name = "TPM2_ActivateCredential";
            let response = self.run(name, 0x147, &[ak, ek], &[password(), policy], &parameters, false)?;
            let mut r = response.parameters();
            let size = r.u16("certInfo")?;
            r.expect("certInfo", 32, size.into())?;
            let secret = r.array("certInfo")?;
            r.end("parameters")?;
            Ok(secret)
        });
        if result.is_err() {
            // The first error is the one to report; a session the TPM already dropped cannot be flushed.
            let _ = self.flush(session);
        }
        result
    }

    /// The content of an NV index (TPM2_NV_ReadPublic, TPM2_NV_Read), or `None` when it is not defined or never written.
    pub(super) fn nv_read(&mut self, index: u32) -> Result<Option<Vec<u8>>, TpmFailure> {
        let Some((attributes, size)) = self.nv_read_public(index)? else { return Ok(None) };
        if attributes & NV_WRITTEN == 0 {
            return Ok(None);
        }
        if size > NV_CAP {
            let (wanted, got) = (NV_CAP.into(), size.into());
            return Err(TpmFailure::TooLong { what: "NV index of the EK certificate", wanted, got });
        }
        let reader = match attributes {
            a if a & NV_AUTH_READ != 0 => index,
            a if a & NV_OWNER_READ != 0 => RH_OWNER,
            _ => {
                return Err(TpmFailure::Inconsistent {
                    what: "NV index of the EK certificate and its read permission",
                });
            }
        };
        let mut content = Vec::new();
        let mut offset = 0;
        while offset < size {
            let wanted = NV_CHUNK.min(size - offset);
            let mut parameters = wanted.to_be_bytes().to_vec();
            parameters.extend(offset.to_be_bytes());
            let response = self.run("TPM2_NV_Read", 0x14E, &[reader, index], &[password()], &parameters, false)?;
            let mut r = response.parameters();
            let data = r.sized("data", NV_CHUNK.into())?;
            r.end("parameters")?;
            if data.len() != usize::from(wanted) {
                return Err(TpmFailure::Inconsistent { what: "NV bytes asked for and NV bytes returned" });
            }
            content.extend(data);
            offset += wanted;
        }
        Ok(Some(content))
    }

    /// TPM2_NV_ReadPublic: attributes and size, or `None` when the index is not defined.
    fn nv_read_public(&mut self, index: u32) -> Result<Option<(u32, u16)>, TpmFailure> {
        let response = match self.run("TPM2_NV_ReadPublic", 0x169, &[index], &[], &[], false) {
            Err(TpmFailure::Refused { rc, .. }) if rc.is_unknown_handle() => return Ok(None),
            other => other?,
        };
        let mut r = response.parameters();
        let public = r.sized("nvPublic", 256)?;
        r.sized("nvName", 64)?;
        r.end("parameters")?;
        let mut p = Reader::new("TPM2_NV_ReadPublic", public);
        let got = p.u32("nvIndex")?;
        p.expect("nvIndex", index, got)?;
        p.u16("nameAlg")?;
        let attributes = p.u32("attributes")?;
        p.sized("authPolicy", 64)?;
        let size = p.u16("dataSize")?;
        p.end("nvPublic")?;
        Ok(Some((attributes, size)))
    }

    /// TPM2_StartAuthSession of a policy session, neither salted nor bound: nothing secret passes in it.
    fn start_policy_session(&mut self, nonce: [u8; 32]) -> Result<u32, TpmFailure> {
        let mut parameters = sized(&nonce);
        parameters.extend([0, 0]); // encryptedSalt
        parameters.push(SE_POLICY);
        parameters.extend(ALG_NULL.to_be_bytes()); // symmetric
        parameters.extend(ALG_SHA256.to_be_bytes()); // authHash
        let (name, handles) = ("TPM2_StartAuthSession", [RH_NULL, RH_NULL]);
        let response = self.run(name, 0x176, &handles, &[], &parameters, true)?;
        let mut r = response.parameters();
        r.sized("nonceTPM", 64)?;
        r.end("parameters")?;
        Ok(response.handle)
    }

    /// TPM2_PolicySecret with the endorsement hierarchy's (empty) auth value.
    fn policy_secret_endorsement(&mut self, session: u32) -> Result<(), TpmFailure> {
        let parameters = [0; 2 + 2 + 2 + 4]; // nonceTPM, cpHashA, policyRef, expiration
        let handles = [RH_ENDORSEMENT, session];
        let response = self.run("TPM2_PolicySecret", 0x151, &handles, &[password()], &parameters, false)?;
        let mut r = response.parameters();
        r.sized("timeout", 64)?;
        r.ticket("policyTicket")?;
        r.end("parameters")
    }

    /// Sends one command, repeats it while the TPM asks for that, and takes the response apart.
    fn run(
        &mut self,
        name: &'static str,
        code: u32,
        handles: &[u32],
        authorizations: &[Vec<u8>],
        parameters: &[u8],
        returns_handle: bool,
    ) -> Result<Response, TpmFailure> {
        let mut body = Vec::new();
        for handle in handles {
            body.extend(handle.to_be_bytes());
        }
        if !authorizations.is_empty() {
            let area = authorizations.concat();
            body.extend(u32::try_from(area.len()).unwrap_or(u32::MAX).to_be_bytes());
            body.extend(area);
        }
        body.extend(parameters);
        let tag = if authorizations.is_empty() { ST_NO_SESSIONS } else { ST_SESSIONS };
        let mut command = tag.to_be_bytes().to_vec();
        command.extend(u32::try_from(10 + body.len()).unwrap_or(u32::MAX).to_be_bytes());
        command.extend(code.to_be_bytes());
        command.extend(body);

        for _ in 0..BUSY_ATTEMPTS {
            let bytes = self.0.transmit(&command).map_err(|error| TpmFailure::Device { command: name, error })?;
            match Response::parse(name, &bytes, authorizations.len(), returns_handle) {
                Err(TpmFailure::Refused { rc, .. }) if rc.is_busy() => thread::sleep(BUSY_PAUSE),
                result => return result,
            }
        }
        Err(TpmFailure::Busy { command: name, attempts: BUSY_ATTEMPTS })
    }
}

/// A successful response.
struct Response {
    command: &'static str,
    /// Zero where the command returns none.
    handle: u32,
    parameters: Vec<u8>,
}

impl Response {
    fn parse(
        command: &'static str,
        bytes: &[u8],
        authorizations: usize,
        returns_handle: bool,
    ) -> Result<Self, TpmFailure> {
        let mut r = Reader::new(command, bytes);
        let tag = r.u16("tag")?;
        let size = r.u32("responseSize")?;
        let got = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        r.expect("responseSize", got, size)?;
        let rc = Rc(r.u32("responseCode")?);
        if rc != Rc::SUCCESS {
            r.expect("tag", ST_NO_SESSIONS.into(), tag.into())?;
            r.end("responseCode")?;
            return Err(TpmFailure::Refused { command, rc });
        }
        let wanted = if authorizations == 0 { ST_NO_SESSIONS } else { ST_SESSIONS };
        r.expect("tag", wanted.into(), tag.into())?;
        let handle = if returns_handle { r.u32("handle")? } else { 0 };
        let parameters = if authorizations == 0 {
            r.rest().to_vec()
        } else {
            let size = r.u32("parameterSize")?;
            let parameters = r.take("parameters", usize::try_from(size).unwrap_or(usize::MAX))?.to_vec();
            for _ in 0..authorizations {
                r.sized("nonceTPM", 64)?;
                r.u8("sessionAttributes")?;
                r.sized("hmac", 64)?;
            }
            r.end("authorization area")?;
            parameters
        };
        Ok(Self { command, handle, parameters })
    }

    fn parameters(&self) -> Reader<'_> {
        Reader::new(self.command, &self.parameters)
    }
}

/// TPMS_AUTH_COMMAND of the empty password.
fn password() -> Vec<u8> {
    let mut out = RS_PW.to_be_bytes().to_vec();
    out.extend([0; 5]); // no nonce, no attributes, empty password
    out
}

/// A TPM2B of at most 32 bytes.
fn sized(bytes: &[u8; 32]) -> Vec<u8> {
    [&32_u16.to_be_bytes()[..], bytes].concat()
}

/// The key is what its template asked for; `unique` alone is the TPM's to choose.
fn fits(public: &Public, template: &Public) -> bool {
    let parameters = match (&public.key, &template.key) {
        (PublicKey::EccP256 { symmetric: a, scheme: b, .. }, PublicKey::EccP256 { symmetric: c, scheme: d, .. })
        | (PublicKey::Rsa2048 { symmetric: a, scheme: b, .. }, PublicKey::Rsa2048 { symmetric: c, scheme: d, .. }) => {
            a == c && b == d
        }
        _ => false,
    };
    parameters
        && public.name_alg == template.name_alg
        && public.attributes == template.attributes
        && public.auth_policy == template.auth_policy
}
