//! Builds the command `vellum` and finds what came of it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// The command and the recorder's plugin, in release mode.
pub(crate) struct Built {
    /// The executable.
    pub(crate) vellum: PathBuf,
    /// The plugin that QEMU loads; `None` if it lies where the executable finds it.
    pub(crate) plugin: Option<PathBuf>,
}

/// Builds them with the cargo that runs this program; wherever its target directory is.
pub(crate) fn vellum() -> Result<Built> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["build", "--release", "--package", "vellum", "--package", "vellum-recorder"])
        .args(["--message-format", "json-render-diagnostics"])
        .stderr(Stdio::inherit())
        .output()
        .context("cargo could not be started")?;
    ensure!(output.status.success(), "vellum could not be built");
    let (mut vellum, mut plugin) = (None, None);
    for line in output.stdout.split(|&byte| byte == b'\n') {
        let Ok(message) = serde_json::from_slice::<Value>(line) else { continue };
        match message["target"]["name"].as_str() {
            Some("vellum") => vellum = message["executable"].as_str().map(PathBuf::from).or(vellum),
            Some("vellum_recorder" | "vellum-recorder") => {
                let files = message["filenames"].as_array().into_iter().flatten();
                let library = files.filter_map(Value::as_str).find(|name| {
                    Path::new(name).extension().is_some_and(|extension| extension == "so")
                });
                plugin = library.map(PathBuf::from).or(plugin);
            }
            _ => {}
        }
    }
    Ok(Built {
        vellum: vellum.context("cargo built no executable `vellum`")?,
        plugin: Some(plugin.context("cargo built no library `vellum_recorder`")?),
    })
}
