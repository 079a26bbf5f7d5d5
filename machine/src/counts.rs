//! What TLBs count.

use vellum_mm::event::Count;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What the TLBs have done: of one processor, or in sum.
        #[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
        pub struct Counts { $($(#[$doc])* pub $name: u64,)* }

        /// [`Counts`] in the making, by the thread that drives the processor.
        #[derive(Default)]
        pub(crate) struct Counters { $(pub(crate) $name: Count,)* }

        impl Counts {
            /// Adds `other` to each count.
            pub fn add(&mut self, other: Counts) {
                $(self.$name += other.$name;)*
            }
        }

        impl Counters {
            /// The counts so far.
            pub(crate) fn get(&self) -> Counts {
                Counts { $($name: self.$name.get(),)* }
            }
        }
    };
}

counters! {
    /// Accesses.
    lookups,
    /// Accesses that no first-level TLB could translate.
    l1_misses,
    /// Walks, which is misses of the second level and dirty assists.
    walks,
    /// Entries that walks read, those of walks that ended in a fault included.
    entries_read,
    /// Walks made only because a write found a cached entry not known to be dirty.
    assists,
    /// Accesses that ended in a fault.
    faults,
    /// Switches to another address space.
    switches,
    /// Pages invalidated one by one.
    pages_invalidated,
    /// Address spaces flushed as a whole.
    flushes,
}
