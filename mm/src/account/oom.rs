//! The choice of a victim when nothing can be evicted any more.
//!
//! Badness is what would be freed: resident pages, swapped pages and page tables, moved by the
//! process's adjustment in thousandths of all memory. The largest dies, as `oom_badness` in Linux's
//! `mm/oom_kill.c` decides.

/// A process that could be killed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Candidate {
    /// Pages in frames.
    pub resident: u64,
    /// Pages in swap.
    pub swapped: u64,
    /// Page tables.
    pub tables: u64,
    /// From -1000, never kill, to 1000 (`oom_score_adj`).
    pub adjustment: i16,
}

/// How much killing `candidate` would help, in pages; `None` if it must not be killed.
pub fn badness(candidate: &Candidate, pages_total: u64) -> Option<i64> {
    if candidate.adjustment <= -1000 {
        return None;
    }
    let points = candidate.resident + candidate.swapped + candidate.tables;
    let adjustment = i64::from(candidate.adjustment) * (pages_total / 1000).cast_signed();
    Some(points.cast_signed() + adjustment)
}

/// The index of the candidate to kill, the first of equals; `None` if there is none.
pub fn choose(candidates: &[Candidate], pages_total: u64) -> Option<usize> {
    let mut worst: Option<(usize, i64)> = None;
    for (i, candidate) in candidates.iter().enumerate() {
        let Some(points) = badness(candidate, pages_total) else { continue };
        if worst.is_none_or(|(_, most)| points > most) {
            worst = Some((i, points));
        }
    }
    worst.map(|(i, _)| i)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn of(resident: u64, swapped: u64, tables: u64, adjustment: i16) -> Candidate {
        Candidate { resident, swapped, tables, adjustment }
    }

    #[test]
    fn the_largest_process_is_chosen_and_page_tables_count() {
        assert_eq!(choose(&[of(60, 0, 1, 0), of(30, 0, 1, 0)], 1000), Some(0));
        assert_eq!(choose(&[of(60, 0, 1, 0), of(20, 5, 50, 0)], 1000), Some(1));
    }

    #[test]
    fn an_adjustment_is_in_thousandths_of_memory() {
        let all = [of(100, 0, 0, 0), of(10, 0, 0, 500)];
        assert_eq!(choose(&all, 1000), Some(1));
        assert_eq!(choose(&all, 100_000), Some(1));
        assert_eq!(badness(&all[1], 1000), Some(510));
    }

    #[test]
    fn who_may_not_be_killed_is_not_chosen() {
        assert_eq!(choose(&[of(100, 0, 0, -1000)], 1000), None);
        assert_eq!(choose(&[], 1000), None);
    }
}
