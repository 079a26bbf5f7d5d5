//! A scenario as its text says it, before it is known to make sense.

use std::path::PathBuf;

use serde::Deserialize;
use toml::Spanned;
use vellum_machine::disk::DiskKind;

use crate::experiment::SwapChoice;
use crate::size::Size;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawPlan {
    pub(super) duration: Option<Time>,
    pub(super) machine: RawMachine,
    #[serde(default)]
    pub(super) control: RawControl,
    pub(super) process: Vec<Spanned<RawProcess>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawMachine {
    pub(super) memory: Bytes,
    pub(super) cpus: Option<Spanned<u32>>,
    pub(super) policy: Option<Spanned<String>>,
    pub(super) swap: Option<Swap>,
    pub(super) disk: Option<FileDisk>,
    pub(super) page_cluster: Option<Spanned<u8>>,
    pub(super) page_cache: Option<PageCache>,
    #[serde(default)]
    pub(super) seed: u64,
    pub(super) profile: Option<Spanned<String>>,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "kebab-case")]
pub(super) enum PageCache {
    Warm,
    Cold,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct RawControl {
    #[serde(default)]
    pub(super) load: Load,
    #[serde(default)]
    pub(super) admission: Admission,
    #[serde(default)]
    pub(super) scope: RawScope,
    #[serde(default)]
    pub(super) allotment: Allotment,
    pub(super) window: Option<Time>,
    pub(super) period: Option<Spanned<Time>>,
    pub(super) residence: Option<Time>,
    pub(super) settle: Option<Time>,
    pub(super) headroom: Option<Spanned<u64>>,
    pub(super) faults_upper: Option<u64>,
    pub(super) faults_lower: Option<u64>,
    pub(super) utilisation: Option<Spanned<u64>>,
    pub(super) sustain: Option<Time>,
}

#[derive(Deserialize, Default, Clone, Copy)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Load {
    #[default]
    None,
    WorkingSet,
    Pff,
}

#[derive(Deserialize, Default, Clone, Copy, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Admission {
    #[default]
    None,
    WorkingSet,
}

#[derive(Deserialize, Default, Clone, Copy, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub(super) enum RawScope {
    #[default]
    Global,
    Local,
}

#[derive(Deserialize, Default, Clone, Copy, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Allotment {
    #[default]
    Equal,
    WorkingSet,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawProcess {
    pub(super) name: Option<String>,
    pub(super) trace: Option<PathBuf>,
    pub(super) pattern: Option<PatternName>,
    pub(super) pages: Option<u64>,
    pub(super) size: Option<Bytes>,
    pub(super) references: Option<u64>,
    pub(super) write_share: Option<f64>,
    pub(super) exponent: Option<f64>,
    pub(super) scattered: Option<bool>,
    pub(super) window: Option<u64>,
    pub(super) phase_references: Option<u64>,
    pub(super) hot: Option<u64>,
    pub(super) hot_share: Option<f64>,
    pub(super) seed: Option<u64>,
    pub(super) compute: Option<Time>,
    #[serde(default)]
    pub(super) start: Time,
    #[serde(default)]
    pub(super) stagger: Time,
    #[serde(default = "one")]
    pub(super) copies: u32,
    #[serde(default)]
    pub(super) repeat: bool,
    pub(super) working_set: Option<Bytes>,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "kebab-case")]
pub(super) enum PatternName {
    Sequential,
    Zigzag,
    Uniform,
    Zipf,
    Phases,
    HotScan,
}

const fn one() -> u32 {
    1
}

/// A length of time: `10s`, `50ms`, `20us`, `100ns`.
#[derive(Deserialize, Clone, Copy, Default)]
#[serde(try_from = "String")]
pub(super) struct Time(pub(super) u64);

impl TryFrom<String> for Time {
    type Error = String;

    fn try_from(text: String) -> Result<Time, String> {
        let refuse = || format!("`{text}` is not a time; write 10s, 50ms, 20us or 100ns");
        let digits = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let number: f64 = number.parse().map_err(|_| refuse())?;
        let factor = match unit.trim() {
            "s" => 1e9,
            "ms" => 1e6,
            "us" | "µs" => 1e3,
            "ns" => 1.0,
            _ => return Err(refuse()),
        };
        let ns = number * factor;
        // Virtual time counts picoseconds in 64 bits: about half a year.
        if !ns.is_finite() || ns > 1e16 {
            return Err(refuse());
        }
        #[allow(clippy::cast_sign_loss)] // digits only: it has no sign
        Ok(Time(ns.round() as u64))
    }
}

#[derive(Deserialize, Clone, Copy)]
#[serde(try_from = "String")]
pub(super) struct Bytes(pub(super) u64);

impl TryFrom<String> for Bytes {
    type Error = String;

    fn try_from(text: String) -> Result<Bytes, String> {
        match text.parse().map_err(|error| format!("{error}"))? {
            Size::Bytes(bytes) => Ok(Bytes(bytes)),
            Size::Percent(_) => Err(format!("`{text}`: say how much, there is no footprint here")),
        }
    }
}

#[derive(Deserialize, Clone, Copy)]
#[serde(try_from = "String")]
pub(super) struct Swap(pub(super) SwapChoice);

impl TryFrom<String> for Swap {
    type Error = String;

    fn try_from(text: String) -> Result<Swap, String> {
        Ok(Swap(text.parse()?))
    }
}

#[derive(Deserialize, Clone, Copy)]
#[serde(try_from = "String")]
pub(super) struct FileDisk(pub(super) DiskKind);

impl TryFrom<String> for FileDisk {
    type Error = String;

    fn try_from(text: String) -> Result<FileDisk, String> {
        match text.parse().map_err(|error| format!("{error}"))? {
            DiskKind::Zram => Err("files are on nvme, ssd or hdd; zram is for swap".to_owned()),
            kind => Ok(FileDisk(kind)),
        }
    }
}
