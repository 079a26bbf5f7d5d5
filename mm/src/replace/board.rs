//! The board: what a policy shows of itself to people.
//!
//! A policy is judged by its victims, and understood by its lists.
//! [`Policy::show`](super::Policy::show) writes them on a [`Board`], in the policy's own words and
//! order, so that whoever explains a decision need not know how the policy keeps its books.
//!
//! Nothing here is on the path of a reference: a policy that nobody looks at pays nothing, and one
//! that is looked at may sort a copy of what it keeps.
//!
//! Knows nothing of: how a board looks.

use super::PageId;
use crate::addr::Frame;

/// Where a policy writes what it keeps.
pub trait Board {
    /// A list, by the name that its paper gives it, with its members in order: the first of a queue
    /// is the first to go. Shown though empty, so that every look at a policy has the same lists.
    fn list(&mut self, name: &'static str, members: &mut dyn Iterator<Item = Member>);

    /// A number that the policy steers by, such as the target `p` of ARC.
    fn number(&mut self, name: &'static str, value: f64);
}

/// Who is in a list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Held {
    /// A resident frame, whatever page it holds.
    Frame(Frame),
    /// A page that is gone, and remembered.
    Page(PageId),
}

/// One entry of a list, with what the policy has noted of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Member {
    /// Who.
    pub held: Held,
    /// The hands that point at it: one or none, where a policy has one hand; any of
    /// [`HANDS_MAX`](Self::HANDS_MAX) else.
    pub hands: [Option<&'static str>; Member::HANDS_MAX],
    /// A word for its state, such as `hot`.
    pub label: Option<&'static str>,
    /// A number that the policy keeps of it, such as how often it was used.
    pub count: Option<u64>,
}

impl Member {
    /// The most hands that a policy has.
    pub const HANDS_MAX: usize = 3;

    /// A resident frame.
    pub const fn frame(frame: Frame) -> Member {
        Member::of(Held::Frame(frame))
    }

    /// A page that is remembered.
    pub const fn page(page: PageId) -> Member {
        Member::of(Held::Page(page))
    }

    const fn of(held: Held) -> Member {
        Member { held, hands: [None; Member::HANDS_MAX], label: None, count: None }
    }

    /// The same, with the hand `name` pointing at it if `points`.
    #[must_use]
    pub fn with_hand(mut self, name: &'static str, points: bool) -> Member {
        if points && let Some(free) = self.hands.iter_mut().find(|hand| hand.is_none()) {
            *free = Some(name);
        }
        self
    }

    /// The same, with a word for its state.
    #[must_use]
    pub const fn with_label(self, label: &'static str) -> Member {
        Member { label: Some(label), ..self }
    }

    /// The same, with a number.
    #[must_use]
    pub const fn with_count(self, count: u64) -> Member {
        Member { count: Some(count), ..self }
    }
}
