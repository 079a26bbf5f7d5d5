//! Whether a thread still lives, as `/proc` tells.

use crate::shared::Control;
use crate::sys;
use std::sync::atomic::Ordering::Relaxed;

/// State and start time, in clock ticks since boot, from a `stat` file of `/proc`.
fn parse(stat: &str) -> Option<(u8, u64)> {
    // The name in parentheses may hold anything, parentheses too.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace();
    let state = *fields.next()?.as_bytes().first()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

/// Whether the owner of a slot lives.
pub(crate) fn is_alive(control: &Control) -> bool {
    let (pid, tid) = (control.pid.load(Relaxed), control.tid.load(Relaxed));
    // A tick of grace: the slot was taken after the thread began, but clocks are coarse.
    is_running(&format!("/proc/{pid}/task/{tid}/stat"), control.born.load(Relaxed) + 1)
}

/// Whether process `pid` lives; a zombie does not.
pub(crate) fn is_process_alive(pid: u32) -> bool {
    is_running(&format!("/proc/{pid}/stat"), u64::MAX)
}

fn is_running(path: &str, latest_start: u64) -> bool {
    let stat = std::fs::read(path).unwrap_or_default();
    // What the kernel does not show is dead, except where it shows nothing at all.
    parse(&String::from_utf8_lossy(&stat))
        .is_some_and(|(state, start)| !matches!(state, b'Z' | b'X' | b'x') && start <= latest_start)
}

/// Children of this process that have the file at `path` mapped: they are being recorded.
pub(crate) fn children_that_map(path: &str) -> Vec<u32> {
    let mut list = Vec::new();
    for task in std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten() {
        let children = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
        list.extend(children.split_ascii_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
    }
    list.retain(|pid| {
        let maps = std::fs::read(format!("/proc/{pid}/maps")).unwrap_or_default();
        let needle = path.as_bytes();
        sys::exists(*pid) && maps.windows(needle.len()).any(|window| window == needle)
    });
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_a_parenthesis_hides_nothing() {
        let rest = "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20";
        assert_eq!(parse(&format!("7 (a) R (b) Z {rest}")), Some((b'Z', 4711)));
        assert_eq!(parse("7 (a) R 1"), None);
        assert_eq!(parse(""), None);
    }

    #[test]
    fn the_test_itself_lives() {
        assert!(is_process_alive(std::process::id()));
        assert!(!is_process_alive(u32::MAX));
        let path = format!("/proc/{}/task/{}/stat", std::process::id(), sys::thread_id());
        assert!(is_running(&path, sys::boot_ticks() + 1));
        assert!(!is_running(&path, 0), "an older owner of the same number is dead");
    }
}
