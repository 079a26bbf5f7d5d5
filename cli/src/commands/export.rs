//! `vellum export`.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Result, bail};
use vellum_lab::report::Grouped;
use vellum_trace::{Reader, export};

use crate::args::ExportArgs;
use crate::output;

pub(crate) fn run(args: &ExportArgs) -> Result<ExitCode> {
    let mut reader = Reader::open(&args.trace)?;
    let name = args.output.display().to_string();
    let ending = args.output.extension().and_then(|ending| ending.to_str());
    let rows = match ending {
        #[cfg(feature = "parquet")]
        Some("parquet") => {
            let mut file = output::temporary(&args.output)?;
            let out = std::io::BufWriter::new(file.as_file_mut());
            let rows = export::parquet::export(&mut reader, out, &name)?;
            output::keep(file, &args.output)?;
            rows
        }
        #[cfg(not(feature = "parquet"))]
        Some("parquet") => bail!("{name}: this `vellum` was built without Parquet; write .csv"),
        Some("csv") => csv(&mut reader, &args.output, &name)?,
        None if args.output == Path::new("-") => csv(&mut reader, &args.output, "standard output")?,
        _ => bail!("{name}: the ending says the format: .parquet or .csv"),
    };
    eprintln!("exported {} events: {name}", Grouped(rows));
    Ok(ExitCode::SUCCESS)
}

fn csv<R: std::io::Read + std::io::Seek>(
    reader: &mut Reader<R>,
    path: &Path,
    name: &str,
) -> Result<u64> {
    let mut rows = 0;
    output::to(Some(path), |out| {
        rows = export::csv::export(reader, out, name)?;
        Ok(())
    })?;
    Ok(rows)
}
