//! Write-back: dirty pages of files on their way to the disk.
//!
//! A page is written where it is; it stays mapped and cached. Before the disk reads it, every entry
//! that maps it loses the right to write, so that the next store faults ([`MakeDirty`]) and marks it
//! dirty again. A page is therefore dirty if and only if its frame says so.
//!
//! [`MakeDirty`]: crate::fault::Fault::MakeDirty

use core::ops::Range;

use super::detach::protect_everywhere;
use super::file::{FileObject, Medium};
use super::index::Cached;
use super::io::{Direction, IO_PAGES_MAX, RequestId};
use super::store::{Store, file_page};
use crate::addr::{FileRef, Frame};
use crate::event::{Event, Target};
use crate::frames::table::Flags;
use crate::machine::{At, Machine, Operation};

/// What a write-back did.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Written {
    /// Pages handed to the disk.
    pub pages: u64,
    /// The last request made: when it and those before it have ended, the pages are on disk.
    pub last: Option<RequestId>,
    /// Whether dirty pages were left, because the disk's queue is full or `pages_max` was reached.
    pub more: bool,
}

/// Starts to write the dirty pages of `file` in `range`, at most `pages_max` of them.
pub fn write_back<M: Machine>(
    store: &Store,
    at: At,
    machine: &M,
    file: FileRef,
    range: Range<u64>,
    pages_max: u64,
) -> Written {
    let object = store.files.get(file);
    let object = object.lock();
    let mut written = Written::default();
    if object.medium == Medium::Memory || object.gone {
        return written;
    }
    let mut next = range.start;
    // Ends: each turn advances `next` beyond the run that it wrote.
    while let Some(run) = dirty_run(store, machine, &object, next..range.end) {
        if written.pages >= pages_max || store.is_full_of_requests() {
            written.more = true;
            break;
        }
        if !machine.permits(Operation::Io) {
            written.more = true;
            break;
        }
        next = run.end;
        let count = run.end - run.start;
        let Some(request) = write_run(store, at, machine, file, &object, run) else {
            written.more = true;
            break;
        };
        written.last = Some(request);
        written.pages += count;
    }
    written
}

/// The first run of dirty pages in `range` that are not being written, at most one request long.
fn dirty_run<M: Machine>(
    store: &Store,
    machine: &M,
    object: &FileObject,
    range: Range<u64>,
) -> Option<Range<u64>> {
    let mut run: Option<Range<u64>> = None;
    object.index.for_each(machine, range.start, range.end, |index, cached| {
        let Cached::Frame(frame) = cached else { return true };
        let state = store.frames.table.peek(frame);
        let dirty = state.has(Flags::DIRTY) && !state.has_any(Flags::READING | Flags::WRITING);
        match &mut run {
            None if dirty => run = Some(index..index + 1),
            None => {}
            Some(run) if dirty && run.end == index => run.end += 1,
            Some(_) => return false,
        }
        run.as_ref().is_none_or(|run| run.end - run.start < IO_PAGES_MAX as u64)
    });
    run
}

fn write_run<M: Machine>(
    store: &Store,
    at: At,
    machine: &M,
    file: FileRef,
    object: &FileObject,
    run: Range<u64>,
) -> Option<RequestId> {
    let mut frames = [Frame(0); IO_PAGES_MAX];
    let count = (run.end - run.start) as usize;
    for (place, index) in frames.iter_mut().zip(run.clone()) {
        let Cached::Frame(frame) = object.index.get(machine, index) else {
            unreachable!("the run was found under the same lock")
        };
        *place = frame;
    }
    // Before the disk can begin: a write that it has not seen must be caught.
    for &frame in &frames[..count] {
        let mut locked = store.frames.table.lock(frame);
        protect_everywhere(store, machine, &locked);
        locked.clear(Flags::DIRTY);
        locked.set(Flags::WRITING);
    }
    let target = Target::File(file, run.start);
    let submitted = store.submit(Direction::Write, target, &frames[..count]);
    if submitted.is_none() {
        // Other processors took the last room in the queue.
        for &frame in &frames[..count] {
            let mut locked = store.frames.table.lock(frame);
            locked.clear(Flags::WRITING);
            locked.set(Flags::DIRTY);
            // An eviction that met it meanwhile left it to the end of the write.
            let page = file_page(locked.owner());
            store.list(&mut locked, page);
        }
        return None;
    }
    store.counters(at).written.add(count as u64);
    machine.happened(Event::Io { target, frame: frames[0], pages: count as u32, write: true });
    submitted
}

#[cfg(test)]
mod tests {
    use crate::addr::Page;
    use crate::fault::Resolved;
    use crate::frames::table::Flags;
    use crate::machine::Access;
    use crate::objects::file::Medium;
    use crate::spaces::vma::Sharing;
    use crate::testing::{AT, Bench, Meddled, Moment};
    use crate::translate::x86_64::WRITE;
    use core::cell::Cell;

    const PAGE: Page = Page(0x1000);

    #[test]
    fn the_first_write_after_a_write_back_faults_and_is_seen() {
        let bench = Bench::new(64, 0);
        let mut space = bench.space();
        let file = bench.file(1, Medium::Disk);
        bench.map_file(&mut space, PAGE, (file, 1), Sharing::Shared);
        bench.touch(&mut space, PAGE, Access::Write).unwrap();
        let frame = bench.entry(&space, PAGE).frame();
        assert!(bench.state(frame).has(Flags::DIRTY));
        let written = bench.vm.write_back(AT, &bench.ram, file, 0..1, 9);
        assert_eq!((written.pages, written.more), (1, false));
        assert!(!bench.entry(&space, PAGE).has(WRITE), "the next store must fault");
        assert_eq!(bench.touch(&mut space, PAGE, Access::Write), Ok(Resolved::MadeDirty));
        bench.settle();
        assert!(bench.state(frame).has(Flags::DIRTY), "it was written while the disk read it");
        bench.check(&[&space]);
    }

    #[test]
    fn the_disk_begins_when_no_write_can_pass_unseen() {
        let bench = Bench::new(64, 0);
        let mut space = bench.space();
        let file = bench.file(1, Medium::Disk);
        bench.map_file(&mut space, PAGE, (file, 1), Sharing::Shared);
        bench.touch(&mut space, PAGE, Access::Write).unwrap();
        let protected = Cell::new(false);
        let meddle = |moment| {
            if moment == Moment::Invalidated {
                protected.set(true);
                assert_eq!(bench.vm.store().requests.lock().queued(), 0, "it would miss a write");
            }
        };
        let machine = Meddled { ram: &bench.ram, meddle: &meddle };
        assert_eq!(bench.vm.write_back(AT, &machine, file, 0..1, 9).pages, 1);
        assert!(protected.get());
    }

    #[test]
    fn neighbours_are_written_in_one_request() {
        let bench = Bench::new(64, 0);
        let file = bench.file(8, Medium::Disk);
        for index in [1, 2, 3, 6] {
            let done = bench.vm.write_page(AT, &bench.ram, file, index, 0, 4096);
            assert!(matches!(done, crate::vm::FileOutcome::Done(_)));
        }
        assert_eq!(bench.vm.write_back(AT, &bench.ram, file, 0..8, 99).pages, 4);
        let pages: std::vec::Vec<_> = bench.settle().iter().map(|r| r.frames().len()).collect();
        assert_eq!(pages, [3, 1]);
    }
}
