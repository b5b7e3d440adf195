//! Sealed blobs: fetched from an IPFS gateway, pinned with a pinning service, and checked against their CID both
//! ways. Ciphertext only.

use std::time::Duration;

use blf_bridge::blob::BLOB_CAP;
use blf_bridge::cid::{self, CidError};
use blf_evidence::json;
use bytes::Bytes;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Method, StatusCode};
use serde::Deserialize;

use crate::courier::https::{HttpError, Https, Outgoing, Reply};
use crate::tunnel::Tunnel;

/// The gateway and the pinning service.
pub struct Blobs<T> {
    gateway: Https<T>,
    pinning: Https<T>,
    token: String,
}

/// Why a blob is not here, or not there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BlobError {
    /// The bytes are not what the CID names, or the pinning service names others.
    #[error(transparent)]
    Cid(#[from] CidError),
    /// No reply.
    #[error("blob: {0}")]
    Http(#[from] HttpError),
    /// The pinning service's reply names no CID.
    #[error("pinning: wanted IpfsHash or data.cid")]
    Malformed,
    /// Another status than 200.
    #[error("blob: wanted 200, got {status}")]
    Status {
        /// HTTP status.
        status: StatusCode,
        /// When to ask again.
        retry_after: Option<Duration>,
    },
}

/// A pinning service's reply, in either of the forms that services give. Not ours to be strict about: what counts
/// is the CID, and that is checked.
#[derive(Deserialize)]
struct Pinned {
    #[serde(rename = "IpfsHash")]
    ipfs_hash: Option<String>,
    data: Option<PinnedData>,
}

#[derive(Deserialize)]
struct PinnedData {
    cid: String,
}

/// Longest reply of a pinning service, in bytes.
const PINNED_CAP: usize = 16 * 1024;
const BOUNDARY: &str = "blf-7c1e5d0b9a3f4e62";

impl<T: Tunnel> Blobs<T> {
    /// Fetches from `gateway`, pins with `pinning` by its bearer `token`.
    pub fn new(gateway: Https<T>, pinning: Https<T>, token: String) -> Self {
        Self { gateway, pinning, token }
    }

    /// Uses no connection made before.
    pub fn renew(&self) {
        self.gateway.renew();
        self.pinning.renew();
    }

    /// The bytes that `cid` names, at most [`BLOB_CAP`].
    ///
    /// # Errors
    /// [`BlobError`].
    pub async fn fetch(&self, cid: &str) -> Result<Bytes, BlobError> {
        // Its form first: only then is it fit for a path.
        is_cid(cid)?;
        let path = format!("/ipfs/{cid}");
        let outgoing = Outgoing { method: Method::GET, path, headers: vec![], body: Bytes::new() };
        let body = send(&self.gateway, outgoing, BLOB_CAP).await?;
        cid::check(cid, &body)?;
        Ok(body)
    }

    /// Pins `blob`, whose CID is `cid`.
    ///
    /// # Errors
    /// [`BlobError`], also when the service says that it stored something else.
    pub async fn pin(&self, cid: &str, blob: &[u8]) -> Result<(), BlobError> {
        cid::check(cid, blob)?;
        let mut body = Vec::with_capacity(blob.len() + 512);
        let file = "Content-Disposition: form-data; name=\"file\"; filename=\"blindference-output.bin\"";
        // Version 1 of a CID means raw leaves to IPFS, so that the service's CID is ours.
        let options = "Content-Disposition: form-data; name=\"pinataOptions\"\r\n\r\n{\"cidVersion\":1}";
        body.extend_from_slice(format!("--{BOUNDARY}\r\n{options}\r\n--{BOUNDARY}\r\n{file}\r\n").as_bytes());
        body.extend_from_slice(b"Content-Type: application/octet-stream\r\n\r\n");
        body.extend_from_slice(blob);
        body.extend_from_slice(format!("\r\n--{BOUNDARY}--\r\n").as_bytes());
        let header = |name: HeaderName, value: String| {
            HeaderValue::try_from(value).map(|value| (name, value)).map_err(|_| HttpError::Request)
        };
        let mut token = header(AUTHORIZATION, format!("Bearer {}", self.token))?;
        token.1.set_sensitive(true);
        let form = header(CONTENT_TYPE, format!("multipart/form-data; boundary={BOUNDARY}"))?;
        let outgoing = Outgoing {
            method: Method::POST,
            path: "/pinning/pinFileToIPFS".into(),
            headers: vec![token, form],
            body: body.into(),
        };
        let reply = send(&self.pinning, outgoing, PINNED_CAP).await?;
        let pinned: Pinned = json::parse("pinning reply", &reply, PINNED_CAP).map_err(|_| BlobError::Malformed)?;
        let stored = pinned.ipfs_hash.or_else(|| pinned.data.map(|data| data.cid)).ok_or(BlobError::Malformed)?;
        // Ours, or the CIDv0 of the same bytes.
        Ok(cid::check(&stored, blob)?)
    }
}

impl BlobError {
    /// Stable, in capitals.
    pub fn code(&self) -> String {
        match self {
            Self::Cid(CidError::Form { .. }) => "CID_FORM".into(),
            Self::Cid(CidError::Mismatch { .. }) => "CID_MISMATCH".into(),
            Self::Http(error) => error.code().into(),
            Self::Malformed => "PINNING_REPLY".into(),
            Self::Status { status, .. } => format!("BLOB_HTTP_{}", status.as_u16()),
        }
    }

    /// When the service wants to be asked again.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// Worth another attempt later: a gateway may not have the blob yet, a service may be busy.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Cid(_) | Self::Http(HttpError::BodyTooLong { .. }) => false,
            Self::Http(_) | Self::Malformed => true,
            Self::Status { status, .. } => matches!(status.as_u16(), 404 | 408 | 429 | 500..=599),
        }
    }
}

/// Checks that `cid` is one of the two forms that can be checked, before anyone is asked for it.
///
/// # Errors
/// [`CidError::Form`].
pub fn is_cid(cid: &str) -> Result<(), CidError> {
    match cid::check(cid, &[]) {
        Err(form @ CidError::Form { .. }) => Err(form),
        // A well-formed CID rarely names the empty blob.
        Ok(()) | Err(CidError::Mismatch { .. }) => Ok(()),
    }
}

async fn send<T: Tunnel>(https: &Https<T>, outgoing: Outgoing, cap: usize) -> Result<Bytes, BlobError> {
    match https.send(outgoing, cap).await? {
        Reply { status: StatusCode::OK, body, .. } => Ok(body),
        Reply { status, retry_after, .. } => Err(BlobError::Status { status, retry_after }),
    }
}
