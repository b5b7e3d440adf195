//! The page for those who rely on a node: its commands run, and end as it says.

use std::process::Command;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// A command of the page and the lines below it, in the same block.
struct Example {
    command: String,
    output: Vec<String>,
}

/// Those that need no node, no build and no file of the reader's own.
fn examples(page: &str) -> Vec<Example> {
    let elsewhere = ["blf ask", "HOST:PORT", "blf verify 0x", "FILE", "out/", "show policy.json"];
    let mut examples: Vec<Example> = Vec::new();
    let (mut open, mut continues) = (false, false);
    for line in page.lines() {
        let Some(line) = line.strip_prefix("    ") else {
            open = false;
            continue;
        };
        if continues || line.starts_with("blf ") {
            let words = line.split(" # ").next().unwrap().trim_end();
            let words = words.strip_suffix('\\').unwrap_or(words).trim();
            match examples.last_mut().filter(|_| continues) {
                Some(example) => example.command.extend([" ", words]),
                None => examples.push(Example { command: words.into(), output: Vec::new() }),
            }
            continues = line.ends_with('\\');
            open = true;
        } else if let Some(example) = examples.last_mut().filter(|example| open && example.command.contains("verify")) {
            example.output.push(line.into());
        }
    }
    examples.retain(|example| !elsewhere.iter().any(|word| example.command.contains(word)));
    examples
}

#[test]
fn every_command_was_run() {
    let page = std::fs::read_to_string(format!("{ROOT}/docs/verifying.md")).unwrap();
    let variable = |name: &str| {
        let line = page.lines().find_map(|line| line.strip_prefix(&format!("    {name}=")));
        line.unwrap_or_else(|| panic!("the page sets no {name}")).to_owned()
    };
    let examples = examples(&page);
    assert!(examples.len() >= 12, "{}", examples.len());
    for Example { command, output } in examples {
        let mut words = command.clone();
        for name in ["NONCE", "AUDIENCE", "V"] {
            words = words.replace(&format!("${name}"), &variable(name));
        }
        let mut blf = Command::new(env!("CARGO_BIN_EXE_blf"));
        blf.current_dir(ROOT).args(words.split_whitespace().skip(1));
        for name in ["BLF_NETWORK", "CLICOLOR_FORCE", "HOME", "XDG_STATE_HOME"] {
            blf.env_remove(name);
        }
        let ran = blf.output().unwrap();
        let shown = super::text(&ran.stdout);
        let lines: Vec<&str> = shown.lines().collect();
        assert!(!lines.is_empty(), "{command}: {}", super::text(&ran.stderr));
        assert!(matches!(ran.status.code(), Some(0 | 3)), "{command}: {shown}");
        if let (Some(wanted), Some(last)) = (output.last(), lines.last()) {
            assert_eq!(wanted, last, "{command}:\n{shown}");
            // How many checks a group has may change without anybody being told something else.
            let heads = |lines: &[&str]| -> Vec<String> {
                lines.iter().map(|line| line.get(..16).unwrap_or(line).to_owned()).collect()
            };
            let output: Vec<&str> = output.iter().map(String::as_str).collect();
            assert_eq!(heads(&output), heads(&lines), "{command}:\n{shown}");
        }
        assert_eq!(command.contains("verify"), !output.is_empty(), "{command}: whoever reads wants to see the verdict");
    }
}
