//! `vellum import`.

use std::io;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Result, bail};
use vellum_lab::report::Grouped;
use vellum_trace::event::Summary;
use vellum_trace::import::{self, Format, Options};
use vellum_trace::{Notes, Writer};

use crate::args::ImportArgs;

pub(crate) fn run(args: &ImportArgs) -> Result<ExitCode> {
    let options =
        Options { fetches: !args.no_fetches, cloudsuite: args.cloudsuite, ..Options::default() };
    let summary = if args.input == Path::new("-") {
        let Some(format) = args.from else {
            bail!("standard input has no name to guess its format from: say it with --from");
        };
        from_stdin(format, options, &args.output)?
    } else {
        let format = match args.from {
            Some(format) => format,
            None => match import::detect(&args.input)? {
                Some(format) => format,
                None => bail!("{}: unknown format; say it with --from", args.input.display()),
            },
        };
        import::file(format, &args.input, &options, &args.output)?
    };
    eprintln!(
        "imported {} references to {} pages: {}",
        Grouped(summary.references),
        Grouped(summary.pages),
        args.output.display()
    );
    for warning in &summary.warnings {
        eprintln!("warning: {warning}");
    }
    Ok(ExitCode::SUCCESS)
}

fn from_stdin(format: Format, mut options: Options, output: &Path) -> Result<Summary> {
    "standard input".clone_into(&mut options.name);
    let mut writer = Writer::create(output, &import::meta(format, &options))?;
    match import::import(format, io::stdin().lock(), &options, &mut writer) {
        Ok(imported) => {
            Ok(writer.finish(Notes { warnings: imported.warnings, ..Notes::default() })?)
        }
        Err(error) => {
            writer.abandon();
            Err(error.into())
        }
    }
}
