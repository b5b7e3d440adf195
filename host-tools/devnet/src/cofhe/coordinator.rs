//! The FHE network's coordinator, who would hand out its public key and its CRS. In `clear` mode there are none.

use super::Answer;

pub(super) fn answer(method: &str, path: &str) -> Answer {
    match (method, path) {
        ("POST", "/GetNetworkPublicKey") => Answer::message(501, "clear mode: this network has no FHE public key"),
        ("POST", "/GetCrs") => Answer::message(501, "clear mode: this network has no CRS"),
        _ => Answer::message(404, "wanted POST /GetNetworkPublicKey or POST /GetCrs"),
    }
}
