//! Reclaim: evicts pages so that frames become free.
//!
//! An allocation that leaves a zone below its `low` watermark wants [`background`](background()) reclaim, which
//! evicts until `high`. An allocation that fails, because fewer than `min` are free, reclaims itself
//! ([`direct`]). Both take their victims from the policy and hand them to [`evict`].
//!
//! ```text
//!     free frames   0 ──── min ──────── low ─────────────── high ────
//!                     direct   background runs …            … and stops
//! ```
//!
//! How many programs may compete for frames at all is [`load_control`]'s question, which it answers by
//! what [`working_set`] measures.

pub mod background;
pub mod direct;
pub mod evict;
pub mod load_control;
pub mod working_set;

pub use background::{Background, background};
pub use direct::{Room, keep_allotment, make_room, make_room_beside, reclaim};
pub(crate) use evict::beat;
pub use evict::page_out;
pub use working_set::take_used;
