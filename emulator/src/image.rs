//! The kernel's image: where it is, or how it comes to be.
//!
//! In a checkout cargo builds it, into a folder of its own (`target/image`): so the build neither
//! waits for another cargo's lock nor throws away what that has built. Elsewhere `VELLUM_KERNEL`
//! names one.
//!
//! Whatever the environment says about compiling is meant for programs of this machine. Flags for
//! its own processor, or for measuring what tests reach, would give an image that does not boot;
//! they are left out.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Names an image that is there already.
const NAMED: &str = "VELLUM_KERNEL";

/// Variables that would change what is built, by the start of their names.
const UNWANTED: [&str; 10] = [
    "RUSTFLAGS",
    "RUSTDOCFLAGS",
    "RUSTC_WRAPPER",
    "RUSTC_WORKSPACE_WRAPPER",
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_BUILD_",
    "CARGO_PROFILE_",
    "CARGO_TARGET_",
    "CLIPPY_",
    "LLVM_PROFILE_FILE",
];

/// Why there is no image.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// The named file is not there.
    #[error("{}: no such file, although {NAMED} names it", .path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// This program has been moved away from the sources it was built of.
    #[error(
        "the kernel cannot be built: {} is gone; build it in a checkout of Vellum with \
         `VELLUM_IMAGE=1 cargo build -p vellum-kernel --profile kernel --target-dir target/image` \
         and name target/image/kernel/vellum-kernel with {NAMED}",
        .checkout.display()
    )]
    NoCheckout {
        /// Where the sources were.
        checkout: PathBuf,
    },
    /// Cargo cannot be run.
    #[error("cannot run {}, which builds the kernel: {reason}", .cargo.display())]
    NoCargo {
        /// The program.
        cargo: PathBuf,
        /// Why.
        reason: String,
    },
    /// The build failed; cargo has told why.
    #[error("the kernel could not be built; cargo should have said why above")]
    BuildFailed,
}

/// The kernel's image: the one that `VELLUM_KERNEL` names, or else the one that cargo builds of
/// this checkout, once in the life of this process. Building takes about half a minute the first
/// time; cargo tells on stderr if it fails.
pub fn image() -> Result<PathBuf, ImageError> {
    static IMAGE: OnceLock<Result<PathBuf, ImageError>> = OnceLock::new();
    let make = || match env::var_os(NAMED).map(PathBuf::from) {
        Some(path) if path.is_file() => Ok(path),
        Some(path) => Err(ImageError::Missing { path }),
        None => build(&sources()),
    };
    IMAGE.get_or_init(make).clone()
}

/// Where the sources of this program were when it was built.
fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The checkout that this program was built of, if it is still there.
pub(crate) fn checkout() -> Option<PathBuf> {
    checkout_at(&sources())
}

fn checkout_at(place: &Path) -> Option<PathBuf> {
    place.canonicalize().ok().filter(|found| found.join("kernel/Cargo.toml").is_file())
}

fn build(place: &Path) -> Result<PathBuf, ImageError> {
    let checkout =
        checkout_at(place).ok_or_else(|| ImageError::NoCheckout { checkout: place.to_owned() })?;
    let target = checkout.join("target/image");
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(&cargo);
    command
        .args(["build", "--quiet", "--package", "vellum-kernel", "--profile", "kernel"])
        .arg("--target-dir")
        .arg(&target)
        .current_dir(&checkout)
        .env("VELLUM_IMAGE", "1");
    for (name, _) in env::vars_os().filter(|(name, _)| is_unwanted(name)) {
        command.env_remove(name);
    }
    let status = command.status().map_err(|error| ImageError::NoCargo {
        cargo: PathBuf::from(cargo),
        reason: error.to_string(),
    })?;
    let image = target.join("kernel/vellum-kernel");
    if status.success() && image.is_file() { Ok(image) } else { Err(ImageError::BuildFailed) }
}

fn is_unwanted(name: &OsString) -> bool {
    UNWANTED.iter().any(|start| name.to_string_lossy().starts_with(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_for_other_programs_are_left_out() {
        for name in ["RUSTFLAGS", "CARGO_BUILD_RUSTFLAGS", "CARGO_TARGET_DIR", "LLVM_PROFILE_FILE"]
        {
            assert!(is_unwanted(&name.into()), "{name}");
        }
        for name in ["CARGO_HOME", "RUSTUP_HOME", "PATH", "CARGO_NET_OFFLINE"] {
            assert!(!is_unwanted(&name.into()), "{name}");
        }
    }

    #[test]
    fn without_sources_the_message_says_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let error = build(folder.path()).unwrap_err().to_string();
        assert!(error.contains("VELLUM_KERNEL") && error.contains("cargo build"), "{error}");
    }
}
