//! Processes that a process started.

use std::fs;

/// Every process below `pid`, however deep, with its name; not `pid` itself.
pub fn below(pid: u32) -> Vec<(u32, String)> {
    let mut all = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().map_while(Result::ok) {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<u32>().ok()) else { continue };
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        let Some((before, after)) = stat.rsplit_once(") ") else { continue };
        let name = before.split_once('(').unwrap().1.to_owned();
        let parent: u32 = after.split(' ').nth(1).unwrap().parse().unwrap();
        all.push((pid, name, parent));
    }
    let mut parents = vec![pid];
    let mut found = Vec::new();
    while let Some(parent) = parents.pop() {
        for (pid, name, _) in all.iter().filter(|p| p.2 == parent) {
            parents.push(*pid);
            found.push((*pid, name.clone()));
        }
    }
    found
}
