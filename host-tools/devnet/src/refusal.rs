//! How a request ends badly: a status, a stable code and one line that says what was wanted and what came.

use std::borrow::Cow;

use blf_evidence::icl::Refusal;
use hyper::StatusCode;

/// Longest detail, in characters.
const DETAIL_CAP: usize = 600;

/// A refusal on its way to the caller.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) status: StatusCode,
    pub(crate) code: Cow<'static, str>,
    pub(crate) detail: String,
    /// Seconds, for 429 and 507.
    pub(crate) retry_after: Option<u64>,
}

/// What most of this crate returns.
pub(crate) type Result<T> = std::result::Result<T, Refused>;

impl Refused {
    pub(crate) fn new(status: StatusCode, code: impl Into<Cow<'static, str>>, detail: impl Into<String>) -> Self {
        Self { status, code: code.into(), detail: one_line(&detail.into()), retry_after: None }
    }

    /// 400: the request cannot be understood.
    pub(crate) fn malformed(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "MALFORMED", detail)
    }

    /// 401: who asks is not proved.
    pub(crate) fn unauthorized(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, code, detail)
    }

    /// 403: proved, but not allowed.
    pub(crate) fn forbidden(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, code, detail)
    }

    /// 404.
    pub(crate) fn not_found(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, detail)
    }

    /// 409: not now, or not again.
    pub(crate) fn conflict(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, code, detail)
    }

    /// 422: understood, and wrong.
    pub(crate) fn unprocessable(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, detail)
    }

    /// 413.
    pub(crate) fn too_large(cap: usize) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "TOO_LARGE", format!("body: wanted at most {cap} bytes"))
    }

    /// 429.
    pub(crate) fn too_many(code: &'static str, detail: impl Into<String>, retry_after: u64) -> Self {
        let retry_after = Some(retry_after);
        Self { retry_after, ..Self::new(StatusCode::TOO_MANY_REQUESTS, code, detail) }
    }

    /// 500: our own fault. Particulars are for the operator, not for the caller.
    pub(crate) fn internal(cause: impl std::fmt::Display) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL", cause.to_string())
    }

    /// True if nothing was wrong with the request.
    pub(crate) fn is_fault(&self) -> bool {
        matches!(self.status, StatusCode::INTERNAL_SERVER_ERROR | StatusCode::INSUFFICIENT_STORAGE)
    }

    /// The document that goes out.
    pub(crate) fn document(&self) -> Refusal {
        let internal = self.status == StatusCode::INTERNAL_SERVER_ERROR;
        let detail = if internal { "the devnet is at fault, its operator sees why" } else { &self.detail };
        Refusal { code: self.code.clone().into_owned(), detail: detail.to_owned() }
    }
}

/// Text that may repeat what a stranger sent, fit for one line of anybody's terminal.
pub(crate) fn one_line(text: &str) -> String {
    let safe = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().take(DETAIL_CAP).map(safe).collect()
}

impl From<rusqlite::Error> for Refused {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            // Undone, and worth another attempt once the operator, who is told, has made room.
            Some(rusqlite::ErrorCode::DiskFull) => Self {
                retry_after: Some(10),
                ..Self::new(StatusCode::INSUFFICIENT_STORAGE, "STORE_FULL", "state: the disk is full")
            },
            _ => Self::internal(format!("state: {error}")),
        }
    }
}

impl From<serde_json::Error> for Refused {
    fn from(error: serde_json::Error) -> Self {
        Self::internal(format!("state: {error}"))
    }
}
