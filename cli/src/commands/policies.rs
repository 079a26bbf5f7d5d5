//! `vellum policies`.

use std::process::ExitCode;

use anyhow::Result;
use serde::Serialize;
use vellum_mm::replace::POLICIES;

use crate::args::{Format, PoliciesArgs};
use crate::output;

#[derive(Serialize)]
struct Row {
    name: &'static str,
    line: &'static str,
    paper: &'static str,
}

pub(crate) fn run(args: &PoliciesArgs) -> Result<ExitCode> {
    let rows: Vec<Row> = POLICIES
        .iter()
        .map(|entry| Row { name: entry.name, line: entry.line, paper: entry.paper })
        .collect();
    output::to(None, |out| {
        match args.format {
            Format::Text => {
                for Row { name, line, paper } in &rows {
                    writeln!(out, "{name:<8} {line}\n         {paper}")?;
                }
            }
            Format::Json => {
                serde_json::to_writer_pretty(&mut *out, &rows)?;
                writeln!(out)?;
            }
            Format::Csv => {
                writeln!(out, "name,line,paper")?;
                for Row { name, line, paper } in &rows {
                    writeln!(out, "{name},\"{line}\",\"{}\"", paper.replace('"', "\"\""))?;
                }
            }
        }
        Ok(())
    })?;
    Ok(ExitCode::SUCCESS)
}
