//! The N-th operation fails, for every N: an error comes back, nothing else changes, nothing is lost.
//!
//! One story with all that needs frames or disks is told again and again. Each time another operation
//! of it fails once; what was refused is then asked for again, and must succeed.

mod world;

use std::collections::BTreeMap;

use vellum_mm::Config;
use vellum_mm::addr::{FileRef, PAGE_BYTES, Page, Pages};
use vellum_mm::machine::Operation;
use vellum_mm::objects::file::{Medium, Warmth};
use vellum_mm::objects::groups::GroupId;
use vellum_mm::objects::swap::SwapConfig;
use vellum_mm::spaces::AddressSpace;
use vellum_mm::spaces::advise::Advise;
use vellum_mm::spaces::layout::Layout;
use vellum_mm::spaces::map::{Map, Place};
use vellum_mm::spaces::remap::Move;
use vellum_mm::spaces::vma::{Backing, Sharing};
use world::World;

/// What fails.
#[derive(Clone, Copy, Debug)]
enum Fails {
    /// The core is refused an operation.
    Core(Operation),
    /// The disk reports a failure.
    Disk,
}

struct Story {
    world: World,
    spaces: Vec<AddressSpace>,
    /// What the pages of each space must show.
    shown: BTreeMap<(usize, Page), u64>,
    stamp: u64,
    failures: u64,
}

impl Story {
    fn new(fails: Fails, after: u64, groups: u16) -> Story {
        let mut config = Config::new(48);
        config.groups = groups;
        config.swap = SwapConfig { slots: 64, page_cluster: 2, in_ram: false };
        let world = World::new(&config, after);
        match fails {
            Fails::Core(operation) => world.hardware.fuse.set(Some((operation, after))),
            Fails::Disk => world.disk_fuse.set(Some(after)),
        }
        Story { world, spaces: Vec::new(), shown: BTreeMap::new(), stamp: 0, failures: 0 }
    }

    /// Whether the failure has happened, and is forgotten by that.
    fn take_blown(&self) -> bool {
        self.world.hardware.blown.take() | self.world.disk_blown.take()
    }

    /// Asks for something until it is granted; only the planned failure excuses a refusal.
    fn must<T, E: std::fmt::Debug>(
        &mut self,
        mut ask: impl FnMut(&mut Story) -> Result<T, E>,
    ) -> T {
        loop {
            match ask(self) {
                Ok(granted) => {
                    self.check();
                    return granted;
                }
                Err(error) => {
                    assert!(self.take_blown(), "{error:?}, though nothing failed");
                    self.failures += 1;
                    self.check();
                    self.look();
                }
            }
        }
    }

    fn check(&self) {
        let spaces: Vec<&AddressSpace> = self.spaces.iter().collect();
        self.world.check(&spaces);
    }

    /// Reads all pages.
    fn look(&mut self) {
        for (&(space, page), &stamp) in &self.shown {
            let found = self.world.read(&mut self.spaces[space], page);
            // Reading may be what fails now.
            if found.is_err() && (self.world.hardware.blown.take() | self.world.disk_blown.take()) {
                self.failures += 1;
                continue;
            }
            assert_eq!(found, Ok(stamp), "{page:?} of space {space}");
        }
    }

    fn write(&mut self, space: usize, page: Page) {
        self.stamp += 1;
        let stamp = self.stamp;
        self.must(|story| story.world.write(&mut story.spaces[space], page, stamp));
        self.shown.insert((space, page), stamp);
    }

    fn map(&mut self, at: Page, count: u64, backing: Option<(FileRef, Sharing)>) {
        let mut request = Map::anonymous(Place::FixedFree(at), count);
        if let Some((file, sharing)) = backing {
            request.backing = Backing::File { file, offset: 0 };
            request.sharing = sharing;
        }
        self.must(|story| {
            let (at, hardware) = (story.world.at(), &story.world.hardware);
            story.world.vm.map(at, hardware, &mut story.spaces[0], request)
        });
    }

    fn fork(&mut self) {
        self.must(|story| {
            let (at, hardware) = (story.world.at(), &story.world.hardware);
            let forked = story.world.vm.fork(at, hardware, &mut story.spaces[0]);
            forked.map(|child| story.spaces.push(child))
        });
        self.join(1, GroupId(2), 3);
        let parent: Vec<_> = self.shown.iter().map(|(&(_, page), &stamp)| (page, stamp)).collect();
        self.shown.extend(parent.into_iter().map(|(page, stamp)| ((1, page), stamp)));
    }

    /// Where replacement is local, a space maps for a group that may hold so many frames.
    fn join(&self, space: usize, group: GroupId, frames: usize) {
        if let Some(groups) = &self.world.vm.store().groups {
            groups.set_space(self.spaces[space].id(), group);
            groups.set_allotment(group, frames);
        }
    }

    fn page_out(&mut self) {
        for space in 0..self.spaces.len() {
            let all = Pages::new(Page(0x100), Page(0x30_0000));
            let (at, hardware) = (self.world.at(), &self.world.hardware);
            // Refused at last, for the holes; all that is mapped has been evicted then.
            let _ = self.world.vm.page_out(at, hardware, &self.spaces[space], all);
            self.check();
        }
        self.world.settle();
        self.check();
    }

    /// Tells the story; whether anything failed in it.
    fn tell(mut self) -> (bool, u64) {
        let boot = self.world.vm.census();
        let add = |bytes, medium| self.world.vm.add_file(bytes, medium, Warmth::Cold);
        let file = add(8 * PAGE_BYTES, Medium::Disk).expect("few files");
        let memory = add(4 * PAGE_BYTES, Medium::Memory).expect("few files");
        self.must(|story| {
            let (at, hardware) = (story.world.at(), &story.world.hardware);
            let made = story.world.vm.new_space(at, hardware, Layout::default());
            made.map(|space| story.spaces.push(space))
        });
        self.join(0, GroupId(1), 5);
        let anonymous = Page(0x1000);
        self.map(anonymous, 6, None);
        self.map(Page(0x2000), 8, Some((file, Sharing::Shared)));
        self.map(Page(0x2100), 8, Some((file, Sharing::Private)));
        self.map(Page(0x3000), 4, Some((memory, Sharing::Shared)));
        for page in Pages::at(anonymous, 6).iter() {
            self.write(0, page);
        }
        for page in [0x3000, 0x3002, 0x2001, 0x2103] {
            self.write(0, Page(page));
        }
        self.shown.insert((0, Page(0x2004)), 0);
        self.page_out();
        self.look();
        self.fork();
        self.write(0, anonymous);
        self.write(1, anonymous);
        self.write(1, Page(0x1003));
        self.write(1, Page(0x2102));
        self.page_out();
        self.write(1, Page(0x1004));
        self.look();
        self.remap(Pages::at(anonymous, 6), Page(0x20_0000));
        self.world.write_back(file);
        self.must(|story| {
            let pages = Pages::at(Page(0x20_0000), 1);
            let (at, hardware) = (story.world.at(), &story.world.hardware);
            story.world.vm.advise(at, hardware, &mut story.spaces[0], pages, Advise::DontNeed)
        });
        self.shown.insert((0, Page(0x20_0000)), 0);
        self.must(|story| story.world.write_file(file, 9, (0, 100), |_| 77));
        let found = self.must(|story| story.world.read_file(file, 9));
        assert_eq!(found, 77);
        self.look();
        self.end(boot, &[file, memory])
    }

    fn remap(&mut self, old: Pages, to: Page) {
        self.must(|story| {
            let (at, hardware) = (story.world.at(), &story.world.hardware);
            let count = old.count() + 2;
            story.world.vm.remap(at, hardware, &mut story.spaces[0], old, count, Move::To(to))
        });
        for page in old.iter() {
            if let Some(stamp) = self.shown.remove(&(0, page)) {
                self.shown.insert((0, to.up(page.0 - old.start.0)), stamp);
            }
        }
    }

    fn end(mut self, boot: vellum_mm::frames::census::Census, files: &[FileRef]) -> (bool, u64) {
        let failed = self.failures > 0 || self.take_blown();
        for space in self.spaces.drain(..) {
            self.world.destroy(space);
        }
        for &file in files {
            self.world.vm.remove_file(self.world.at(), &self.world.hardware, file);
        }
        self.world.settle();
        self.check();
        assert_eq!(self.world.vm.census(), boot, "frames lost");
        assert_eq!(self.world.vm.store().swap.used(), 0, "slots lost");
        (failed, self.failures)
    }
}

/// Fails operation 0, 1, 2, … until the story ends before the operation that should fail; where
/// replacement is global, and where it is local.
fn every(fails: Fails, least: u64) {
    for groups in [0, 2] {
        let mut errors = 0;
        for after in 0.. {
            let (failed, failures) = Story::new(fails, after, groups).tell();
            errors += failures;
            if !failed {
                assert!(after >= least, "only {after} operations could fail");
                assert!(errors > 0, "no failure was ever reported");
                break;
            }
        }
    }
}

#[test]
fn a_refused_frame_is_an_error_and_changes_nothing() {
    every(Fails::Core(Operation::AllocFrame), 40);
}

#[test]
fn a_refused_request_is_an_error_and_changes_nothing() {
    every(Fails::Core(Operation::Io), 10);
}

#[test]
fn a_failed_request_loses_no_page() {
    every(Fails::Disk, 10);
}
