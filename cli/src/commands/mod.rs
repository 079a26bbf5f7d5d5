//! One file a command.

pub(crate) mod advise;
pub(crate) mod boot;
pub(crate) mod curve;
pub(crate) mod explain;
pub(crate) mod export;
pub(crate) mod generate;
pub(crate) mod import;
pub(crate) mod info;
pub(crate) mod policies;
pub(crate) mod record;
pub(crate) mod replay;
pub(crate) mod run;
pub(crate) mod shell;
