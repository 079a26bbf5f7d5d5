//! Sizes as users write them: `16M`, `1.5G`, `4k`, `0x1000`, `64 pages`, `25%`.
//!
//! Letters count by 1024, as the kernel, cgroups, systemd and Docker do: `k`, `M`, `G`, `T`, also
//! `KiB`, `MiB`, …; `kB`, `MB`, … spelled so count by 1000.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;
use vellum_mm::addr::PAGE_BYTES;

/// An amount of memory, or a part of something yet to be known.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Size {
    /// Bytes.
    Bytes(u64),
    /// Per cent of the program's footprint.
    Percent(f64),
}

/// Text that is no size.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error("`{0}` is not a size; write bytes with k, M, G or T (x 1024), pages (`64p`), or per cent")]
pub struct NotASize(pub String);

impl FromStr for Size {
    type Err = NotASize;

    fn from_str(text: &str) -> Result<Size, NotASize> {
        let refuse = || NotASize(text.to_owned());
        let trimmed = text.trim();
        if let Some(hex) = trimmed.strip_prefix("0x").or_else(|| trimmed.strip_prefix("0X")) {
            return u64::from_str_radix(hex, 16).map(Size::Bytes).map_err(|_| refuse());
        }
        let digits = trimmed.find(|c: char| !(c.is_ascii_digit() || c == '.'));
        let (number, unit) = trimmed.split_at(digits.unwrap_or(trimmed.len()));
        let number: f64 = number.parse().map_err(|_| refuse())?;
        let factor: f64 = match unit.trim() {
            "%" if number > 0.0 => return Ok(Size::Percent(number)),
            "" | "B" => 1.0,
            "k" | "K" | "KiB" | "kiB" | "Ki" => 1024.0,
            "m" | "M" | "MiB" | "Mi" => 1024.0 * 1024.0,
            "g" | "G" | "GiB" | "Gi" => 1024.0 * 1024.0 * 1024.0,
            "t" | "T" | "TiB" | "Ti" => 1024.0 * 1024.0 * 1024.0 * 1024.0,
            "kB" | "KB" => 1e3,
            "MB" => 1e6,
            "GB" => 1e9,
            "TB" => 1e12,
            "p" | "page" | "pages" => PAGE_BYTES as f64,
            _ => return Err(refuse()),
        };
        let bytes = number * factor;
        // 2^63 bytes are more than any machine has; beyond, a float no longer says what was meant.
        if !bytes.is_finite() || bytes >= 9.2e18 {
            return Err(refuse());
        }
        #[allow(clippy::cast_sign_loss)] // digits only: it has no sign
        Ok(Size::Bytes(bytes.round() as u64))
    }
}

impl Size {
    /// The bytes, where `whole` is what a percentage refers to.
    #[allow(clippy::cast_sign_loss)] // percentages are positive
    pub fn bytes(self, whole: u64) -> u64 {
        match self {
            Size::Bytes(bytes) => bytes,
            Size::Percent(percent) => (whole as f64 * percent / 100.0).ceil() as u64,
        }
    }
}

/// Bytes as people read them: `16.0 MiB`.
#[derive(Clone, Copy, Debug)]
pub struct Human(pub u64);

impl fmt::Display for Human {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
        let mut value = self.0 as f64;
        let mut unit = 0;
        while value >= 1024.0 && unit + 1 < UNITS.len() {
            value /= 1024.0;
            unit += 1;
        }
        let text = match unit {
            0 => format!("{} B", self.0),
            _ => format!("{value:.1} {}", UNITS[unit]),
        };
        f.pad(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &str) -> u64 {
        match text.parse() {
            Ok(Size::Bytes(bytes)) => bytes,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn letters_count_by_1024_and_decimal_units_by_1000() {
        assert_eq!(bytes("512M"), 512 << 20);
        assert_eq!(bytes("4k"), 4096);
        assert_eq!(bytes("1.5G"), 3 << 29);
        assert_eq!(bytes("2GiB"), 2 << 30);
        assert_eq!(bytes("10MB"), 10_000_000);
        assert_eq!(bytes("0x1000"), 4096);
        assert_eq!(bytes("64p"), 64 * 4096);
        assert_eq!(bytes("123"), 123);
    }

    #[test]
    fn a_percentage_needs_a_whole() {
        assert_eq!("25%".parse(), Ok(Size::Percent(25.0)));
        assert_eq!(Size::Percent(25.0).bytes(4096 * 8), 8192);
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "M", "-1M", "12Q", "1..5G", "0%", "0xzz", "99999999999T", "nan"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
    }

    #[test]
    fn people_read_three_digits_and_a_unit() {
        assert_eq!(Human(512).to_string(), "512 B");
        assert_eq!(Human(16 << 20).to_string(), "16.0 MiB");
    }
}
