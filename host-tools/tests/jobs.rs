//! `blf-host jobs` against payment services that behave and that do not, on a local socket.

use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::Command;
use std::sync::Arc;
use std::thread;

use serde_json::{Value, json};
use tempfile::TempDir;

const NODE: &str = "0x5935897A39AFABbedA5a599D38236E7Df151C8b8";

/// Answers every request with what `answer` makes of its path, head and all, then closes.
fn serve(answer: impl Fn(&str) -> Vec<u8> + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let path = request(&mut stream);
            // A client that hangs up on too much is what is wanted of it.
            drop(stream.write_all(&answer(&path)));
        }
    });
    format!("http://{address}")
}

/// Reads one request head and gives its path.
fn request(stream: &mut impl Read) -> String {
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next().unwrap().unwrap();
    assert!(lines.by_ref().map_while(Result::ok).any(|line| line.is_empty()));
    first.split(' ').nth(1).unwrap().to_owned()
}

fn http(status: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len())
        .into()
}

fn good(path: &str) -> Vec<u8> {
    let jobs = json!([
        { "job_id": "b4\u{1b}[31m", "role": "leader", "status": "COMPLETED", "amount_blind_earned": 0.6,
          "model_id": "m", "completed_at": "2026-05-18T10:00:00" },
        { "job_id": "b5", "role": "verifier", "status": "RUNNING", "amount_blind_earned": null, "model_id": "m",
          "completed_at": null },
    ]);
    if path == format!("/v1/nodes/{NODE}/jobs?limit=5") {
        return http("200 OK", &json!({ "node_address": NODE, "count": 2, "jobs": jobs }).to_string());
    }
    if path == format!("/v1/nodes/{NODE}/earnings") {
        return http("200 OK", &json!({ "total_blind_earned": 0.6, "jobs_count": 1 }).to_string());
    }
    http("404 Not Found", "{\"detail\":\"x\"}")
}

fn run(arguments: &[&str]) -> (i32, String, String) {
    let nowhere = TempDir::new().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_blf-host"))
        .args(arguments)
        .env_clear()
        .env("BLF_CONFIG_DIR", nowhere.path())
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn fails(arguments: &[&str]) -> (i32, Value) {
    let (code, stdout, _) = run(&[arguments, &["--json"]].concat());
    let object: Value = serde_json::from_str(&stdout).unwrap_or_else(|e| panic!("{e}: {stdout}"));
    assert!(object["failure"]["hint"].is_string(), "{object}");
    (code, object["failure"].clone())
}

#[test]
fn jobs_and_earnings_are_shown() {
    let url = serve(good);
    let of = ["--address", NODE, "--payment-service-url", &url];
    let (code, stdout, stderr) = run(&[&["jobs", "list", "--limit", "5"], &of[..]].concat());
    assert_eq!(code, 0, "{stderr}");
    assert!(stdout.starts_with("Job ID") && stdout.contains("COMPLETED   0.6\n"), "{stdout}");
    assert!(stdout.contains("RUNNING     -\n") && !stdout.contains('\u{1b}'), "{stdout:?}");
    let (code, stdout, _) = run(&[&["jobs", "earnings"], &of[..]].concat());
    assert_eq!((code, stdout.as_str()), (0, "0.6 BLIND for 1 jobs\n"));
    let (_, stdout, _) = run(&[&["jobs", "earnings", "--json"], &of[..]].concat());
    let earned: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((&earned["total"]["jobs_count"], &earned["nodes"][0]["address"]), (&json!(1), &json!(NODE)));
}

#[test]
fn a_service_that_does_not_answer_as_it_should_is_told_apart() {
    let other = "0x0000000000000000000000000000000000000000";
    let empty = json!({ "node_address": NODE, "count": 0, "jobs": [] }).to_string();
    let many = json!({ "node_address": NODE, "count": 30, "jobs": vec![json!({ "job_id": "a", "role": "leader",
        "status": "s", "amount_blind_earned": null, "model_id": null, "completed_at": null }); 30] });
    for (reply, code, name) in [
        (http("404 Not Found", "{}"), 1, "PAYMENT_UNKNOWN"),
        (http("500 Internal Server Error", "s3cret"), 1, "PAYMENT_REFUSED"),
        (http("302 Found\r\nlocation: http://127.0.0.1:1/", ""), 1, "PAYMENT_REFUSED"),
        (http("200 OK", "no json"), 1, "PAYMENT_MALFORMED"),
        (http("200 OK", &"[".repeat(100_000)), 1, "PAYMENT_MALFORMED"),
        (http("200 OK", &empty.replace(NODE, other)), 1, "PAYMENT_MALFORMED"),
        (http("200 OK", &many.to_string()), 1, "PAYMENT_MALFORMED"),
        (http("200 OK", &format!("{}{empty}", " ".repeat(2 * 1024 * 1024))), 1, "PAYMENT_MALFORMED"),
        (b"SSH-2.0-OpenSSH\r\n".to_vec(), 5, "PAYMENT_UNREACHABLE"),
        (Vec::new(), 5, "PAYMENT_UNREACHABLE"),
    ] {
        let shown = String::from_utf8_lossy(&reply).chars().take(60).collect::<String>();
        let url = serve(move |_| reply.clone());
        let (got, failure) = fails(&["jobs", "list", "--address", NODE, "--payment-service-url", &url]);
        assert_eq!((got, failure["code"].as_str()), (code, Some(name)), "{shown}: {failure}");
        assert!(!failure.to_string().contains("s3cret"), "{failure}");
    }
    // Nobody listens there any more.
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("http://{gone}");
    let (code, failure) = fails(&["jobs", "earnings", "--address", NODE, "--payment-service-url", &url]);
    assert_eq!((code, failure["code"].as_str()), (5, Some("PAYMENT_UNREACHABLE")), "{failure}");
    assert!(failure["message"].as_str().unwrap().starts_with("payment service unreachable: "), "{failure}");
}

#[test]
fn what_is_missing_is_said() {
    let (code, failure) = fails(&["jobs", "list", "--address", NODE]);
    assert_eq!((code, failure["code"].as_str()), (6, Some("NO_PAYMENT_SERVICE")), "{failure}");
    for (url, address) in [("http://payment.example", NODE), ("https://payment.example", "0x5935")] {
        let (code, stdout, _) = run(&["jobs", "list", "--address", address, "--payment-service-url", url, "--json"]);
        assert!(code == 2 && stdout.contains("USAGE"), "{stdout}");
    }
}

#[test]
fn a_service_over_tls_is_believed_by_its_roots_alone() {
    let name = vec!["localhost".to_owned()];
    let theirs = rcgen::generate_simple_self_signed(name.clone()).unwrap();
    let other = rcgen::generate_simple_self_signed(name).unwrap();
    let folder = TempDir::new().unwrap();
    let roots = |certificate: &rcgen::Certificate, name: &str| {
        let file = folder.path().join(name);
        std::fs::write(&file, certificate.pem()).unwrap();
        file.to_str().unwrap().to_owned()
    };
    let (right, wrong) = (roots(&theirs.cert, "right.pem"), roots(&other.cert, "wrong.pem"));

    let key = rustls::pki_types::PrivateKeyDer::try_from(theirs.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![theirs.cert.der().clone()], key)
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    thread::spawn(move || {
        for stream in listener.incoming() {
            let session = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut stream = rustls::StreamOwned::new(session, stream.unwrap());
            // One that does not believe us hangs up.
            let mut first = [0];
            if stream.read(&mut first).is_ok_and(|read| read == 1) {
                let path = request(&mut first.as_slice().chain(&mut stream));
                drop(stream.write_all(&good(&path)));
            }
        }
    });
    let earnings = |roots: &str| {
        run(&["jobs", "earnings", "--address", NODE, "--payment-service-url", &url, "--payment-roots", roots])
    };
    let (code, stdout, stderr) = earnings(&right);
    assert_eq!((code, stdout.as_str()), (0, "0.6 BLIND for 1 jobs\n"), "{stderr}");
    let (code, _, stderr) = earnings(&wrong);
    assert!(code == 5 && stderr.contains("invalid peer certificate"), "{stderr}");
    std::fs::write(folder.path().join("none.pem"), "no certificate").unwrap();
    let (code, _, stderr) = earnings(folder.path().join("none.pem").to_str().unwrap());
    assert!(code == 6 && stderr.contains("PAYMENT_ROOTS"), "{stderr}");
}
