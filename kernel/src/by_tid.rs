//! Things by the number of their thread or process.

use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::tasks::Tid;

/// Things that have a thread's or process's number. Numbers go up to 32,767 before they are used again,
/// so those that are not in use take a word and no more.
pub(crate) struct ByTid<T>(Vec<Option<Box<T>>>);

impl<T> Default for ByTid<T> {
    fn default() -> ByTid<T> {
        ByTid(Vec::new())
    }
}

impl<T> ByTid<T> {
    /// Adds `item` in place of any other of that number.
    pub(crate) fn insert(&mut self, tid: Tid, item: T) {
        let place = tid as usize;
        if self.0.len() <= place {
            self.0.resize_with(place + 1, || None);
        }
        self.0[place] = Some(Box::new(item));
    }

    /// The one of that number, if there is one.
    #[inline]
    pub(crate) fn get(&self, tid: Tid) -> Option<&T> {
        self.0.get(tid as usize)?.as_deref()
    }

    /// The one of that number, if there is one.
    #[inline]
    pub(crate) fn get_mut(&mut self, tid: Tid) -> Option<&mut T> {
        self.0.get_mut(tid as usize)?.as_deref_mut()
    }

    /// Takes it out.
    pub(crate) fn remove(&mut self, tid: Tid) -> Option<T> {
        self.0.get_mut(tid as usize)?.take().map(|item| *item)
    }

    /// All, by number.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Tid, &T)> {
        let all = self.0.iter().enumerate();
        all.filter_map(|(tid, item)| Some((tid as Tid, item.as_deref()?)))
    }

    /// All, by number.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (Tid, &mut T)> {
        let all = self.0.iter_mut().enumerate();
        all.filter_map(|(tid, item)| Some((tid as Tid, item.as_deref_mut()?)))
    }
}

impl<T> core::ops::Index<Tid> for ByTid<T> {
    type Output = T;

    /// # Panics
    /// If there is none.
    #[inline]
    fn index(&self, tid: Tid) -> &T {
        self.get(tid).expect("a number in use")
    }
}

impl<T> core::ops::IndexMut<Tid> for ByTid<T> {
    /// # Panics
    /// If there is none.
    #[inline]
    fn index_mut(&mut self, tid: Tid) -> &mut T {
        self.get_mut(tid).expect("a number in use")
    }
}
