//! `vellum policies`.

use std::process::ExitCode;

use anyhow::Result;
use serde::Serialize;
use vellum_mm::replace::{About, POLICIES};

use crate::args::{Format, PoliciesArgs};
use crate::output;

#[derive(Serialize)]
struct Row {
    name: &'static str,
    line: &'static str,
    paper: &'static str,
    settings: Vec<SettingRow>,
}

#[derive(Serialize)]
struct SettingRow {
    name: &'static str,
    line: &'static str,
    default: u64,
    min: u64,
    max: u64,
}

impl Row {
    fn of(about: &'static About) -> Row {
        let settings = about.settings.iter().map(|setting| SettingRow {
            name: setting.name,
            line: setting.line,
            default: setting.default,
            min: *setting.range.start(),
            max: *setting.range.end(),
        });
        Row { name: about.name, line: about.line, paper: about.paper, settings: settings.collect() }
    }
}

pub(crate) fn run(args: &PoliciesArgs) -> Result<ExitCode> {
    let rows: Vec<Row> = POLICIES.iter().map(|entry| Row::of(entry.about)).collect();
    output::to(None, |out| {
        match args.format {
            Format::Text => {
                for Row { name, line, paper, settings } in &rows {
                    writeln!(out, "{name:<14} {line}\n{:14} {paper}", "")?;
                    for SettingRow { name, line, default, .. } in settings {
                        writeln!(out, "{:14} :{name}={default}  {line}", "")?;
                    }
                }
            }
            Format::Json => {
                serde_json::to_writer_pretty(&mut *out, &rows)?;
                writeln!(out)?;
            }
            Format::Csv => {
                writeln!(out, "name,line,paper")?;
                for Row { name, line, paper, .. } in &rows {
                    writeln!(out, "{name},\"{line}\",\"{}\"", paper.replace('"', "\"\""))?;
                }
            }
        }
        Ok(())
    })?;
    Ok(ExitCode::SUCCESS)
}
