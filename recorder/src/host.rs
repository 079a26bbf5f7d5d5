//! Where and when a recording was made, for its provenance.

use std::time::{SystemTime, UNIX_EPOCH};

/// The present time as RFC 3339 says it, in UTC: `2026-11-22T11:20:34Z`.
pub(crate) fn now() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    rfc_3339(seconds)
}

fn rfc_3339(seconds: u64) -> String {
    const DAY: u64 = 86_400;
    // Years that begin in March put the leap day last; 400 of them always have as many days.
    // The method is that of H. Hinnant, "chrono-Compatible Low-Level Date Algorithms", 2013.
    let days = seconds / DAY + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let date = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = year + era * 400 + next;
    let time = seconds % DAY;
    let (hour, minute, second) = (time / 3_600, time / 60 % 60, time % 60);
    format!("{year:04}-{month:02}-{date:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// The kernel and the processor: `Linux 6.1.0, Intel Xeon`.
pub(crate) fn describe() -> String {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let release = read("/proc/sys/kernel/osrelease");
    let processor = read("/proc/cpuinfo");
    let processor =
        processor.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let processor = processor.map_or("unknown processor", |(_, name)| name);
    format!("Linux {}, {processor}", release.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_moments_have_known_dates() {
        assert_eq!(rfc_3339(0), "1970-01-01T00:00:00Z");
        assert_eq!(rfc_3339(951_827_696), "2000-02-29T12:34:56Z");
        assert_eq!(rfc_3339(1_709_251_199), "2024-02-29T23:59:59Z");
        assert_eq!(rfc_3339(1_709_251_200), "2024-03-01T00:00:00Z");
        assert_eq!(rfc_3339(4_102_444_799), "2099-12-31T23:59:59Z");
        assert_eq!(rfc_3339(4_107_542_400), "2100-03-01T00:00:00Z");
    }
}
