//! Progress on standard error, when that is a terminal.

use indicatif::{ProgressBar, ProgressStyle};

/// A bar for work of `total` steps, or a spinner if that is not known.
pub(crate) fn bar(total: Option<u64>, what: &'static str) -> ProgressBar {
    let (bar, template) = match total {
        Some(total) => (
            ProgressBar::new(total),
            "{msg} {bar:30} {percent:>3}% {human_pos} events {per_sec} {eta} left",
        ),
        None => (ProgressBar::no_length(), "{msg} {spinner} {human_pos} events {per_sec}"),
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.set_message(what);
    bar
}
