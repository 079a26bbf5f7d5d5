//! What users can set in a policy: a few numbers, each with a name, a default and a range.

use core::fmt;
use core::ops::RangeInclusive;

/// A number that users can set.
#[derive(Debug)]
pub struct Setting {
    /// What users type before the `=`.
    pub name: &'static str,
    /// What it means, with its unit.
    pub line: &'static str,
    /// Its value unless set.
    pub default: u64,
    /// What it may be.
    pub range: RangeInclusive<u64>,
}

/// What a user set, in no more than [`MAX`](Self::MAX) pairs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Settings([Option<(&'static str, u64)>; Settings::MAX]);

impl Settings {
    /// The most settings that a policy has.
    pub const MAX: usize = 4;
    /// Nothing set: everything has its default.
    pub const NONE: Settings = Settings([None; Settings::MAX]);

    /// The settings in `text`, `name=value` joined by `:`, of those that a policy `has`.
    ///
    /// # Errors
    /// If one is none of those, comes twice, or has a value outside its range.
    pub fn parse(text: &str, has: &'static [Setting]) -> Result<Settings, SettingError> {
        let mut settings = Settings::NONE;
        for pair in text.split(':').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').ok_or(SettingError::NotAPair)?;
            let found = has.iter().find(|setting| setting.name == name);
            let setting = found.ok_or(SettingError::NoSuchSetting(has))?;
            let value: u64 = value.parse().map_err(|_| SettingError::OutOfRange(setting))?;
            settings.set(setting, value)?;
        }
        Ok(settings)
    }

    /// Sets one.
    ///
    /// # Errors
    /// If it is set already, or the value is outside its range.
    pub fn set(&mut self, setting: &'static Setting, value: u64) -> Result<(), SettingError> {
        if !setting.range.contains(&value) {
            return Err(SettingError::OutOfRange(setting));
        }
        if self.0.iter().flatten().any(|(name, _)| *name == setting.name) {
            return Err(SettingError::Twice(setting));
        }
        let free = self.0.iter_mut().find(|pair| pair.is_none());
        *free.ok_or(SettingError::Twice(setting))? = Some((setting.name, value));
        Ok(())
    }

    /// The value of `setting`: as set, or its default.
    pub fn get(&self, setting: &Setting) -> u64 {
        let set = self.0.iter().flatten().find(|(name, _)| *name == setting.name);
        set.map_or(setting.default, |(_, value)| *value)
    }
}

/// Why a policy cannot be had as asked for.
#[derive(Clone, Copy, Debug)]
pub enum SettingError {
    /// No policy has this name.
    NoSuchPolicy,
    /// A setting is not `name=value`.
    NotAPair,
    /// The policy has only these settings.
    NoSuchSetting(&'static [Setting]),
    /// The value is no number in the setting's range.
    OutOfRange(&'static Setting),
    /// The setting is given twice.
    Twice(&'static Setting),
}

impl fmt::Display for SettingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SettingError::NoSuchPolicy => {
                f.write_str("no policy has this name; there are")?;
                for (at, entry) in super::POLICIES.iter().enumerate() {
                    write!(f, "{} {}", if at == 0 { "" } else { "," }, entry.about.name)?;
                }
                Ok(())
            }
            SettingError::NotAPair => {
                f.write_str("settings are name=value, joined by `:`, as in lru-k:k=3")
            }
            SettingError::NoSuchSetting([]) => f.write_str("this policy has no settings"),
            SettingError::NoSuchSetting(has) => {
                f.write_str("this policy has only")?;
                has.iter().try_for_each(|setting| write!(f, " {}", setting.name))
            }
            SettingError::OutOfRange(setting) => {
                let (low, high) = (setting.range.start(), setting.range.end());
                write!(f, "{} is a whole number from {low} to {high}", setting.name)
            }
            SettingError::Twice(setting) => write!(f, "{} is given twice", setting.name),
        }
    }
}

impl core::error::Error for SettingError {}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    static HAS: [Setting; 2] = [
        Setting { name: "k", line: "references", default: 2, range: 1..=8 },
        Setting { name: "delta", line: "references", default: 1000, range: 1..=u64::MAX },
    ];

    #[test]
    fn what_is_not_set_has_its_default() {
        let settings = Settings::parse("delta=7", &HAS).expect("valid");
        assert_eq!((settings.get(&HAS[0]), settings.get(&HAS[1])), (2, 7));
        assert_eq!(Settings::parse("", &HAS).expect("valid"), Settings::NONE);
    }

    #[test]
    fn each_mistake_has_its_own_line() {
        for (text, says) in [
            ("k", "settings are name=value"),
            ("x=1", "this policy has only k delta"),
            ("k=9", "k is a whole number from 1 to 8"),
            ("k=two", "k is a whole number from 1 to 8"),
            ("k=1:k=2", "k is given twice"),
        ] {
            let error = Settings::parse(text, &HAS).expect_err(text).to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
        assert!(super::super::Choice::parse("nothing").is_err());
    }
}
