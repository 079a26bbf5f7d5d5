//! The areas of a space against an array of pages: random operations, and every short sequence.

use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use vellum_mm::addr::{FileRef, Page, Pages};
use vellum_mm::spaces::areas::{AREAS_MAX, Areas, GrowError, MapError, StackLimits, TooMany};
use vellum_mm::spaces::vma::{Backing, Rights, Sharing, Vma, VmaFlags};

const RW: Rights = Rights::READ.union(Rights::WRITE);

/// One page of the model: all that its area says about it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Cell {
    file: Option<(FileRef, u64)>,
    rights: Rights,
    flags: VmaFlags,
}

impl Cell {
    /// Whether `next`, one page further up, is in the same area.
    fn continues_in(self, next: Cell) -> bool {
        let file = self.file.map(|(file, index)| (file, index + 1));
        Cell { file, ..self } == next
    }
}

/// An address space as an array: page number to what is there.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Model {
    cells: Vec<Option<Cell>>,
    guard_pages: u64,
    len_max: usize,
}

impl Model {
    fn new(pages: usize, guard_pages: u64, len_max: usize) -> Model {
        Model { cells: vec![None; pages], guard_pages, len_max }
    }

    fn at(&self, page: Page) -> Option<Cell> {
        self.cells.get(page.0 as usize).copied().flatten()
    }

    /// The areas that the cells amount to, merged as far as possible.
    fn areas(&self) -> Vec<Vma> {
        let mut areas: Vec<Vma> = Vec::new();
        for (page, cell) in (0..).map(Page).zip(&self.cells) {
            let Some(cell) = cell else { continue };
            if let Some(before) = page.0.checked_sub(1).and_then(|below| self.at(Page(below)))
                && before.continues_in(*cell)
            {
                areas.last_mut().expect("the page below is in it").pages.end = page.up(1);
                continue;
            }
            areas.push(vma_of(Pages::at(page, 1), *cell));
        }
        areas
    }

    fn area_of(&self, page: Page) -> Option<Vma> {
        self.areas().into_iter().find(|vma| vma.pages.contains(page))
    }

    /// Takes the place of `self` if it has not too many areas.
    fn become_allowed(&mut self, next: Model) -> Result<(), TooMany> {
        if next.areas().len() > self.len_max {
            return Err(TooMany);
        }
        *self = next;
        Ok(())
    }

    fn insert(&mut self, vma: &Vma) -> Result<(), MapError> {
        let mut next = self.clone();
        for page in vma.pages.iter() {
            if self.at(page).is_some() {
                return Err(MapError::Occupied(page));
            }
            next.cells[page.0 as usize] = Some(cell_of(vma, page));
        }
        self.become_allowed(next).map_err(|TooMany| MapError::TooMany)
    }

    fn remove(&mut self, pages: Pages) -> Result<Vec<Vma>, TooMany> {
        let pieces = self.areas().iter().filter_map(|vma| vma.part(pages)).collect();
        let mut next = self.clone();
        pages.iter().for_each(|page| next.cells[page.0 as usize] = None);
        self.become_allowed(next).map(|()| pieces)
    }

    fn change(&mut self, pages: Pages, change: Change) -> Result<(), TooMany> {
        let mut next = self.clone();
        for page in pages.iter() {
            if let Some(cell) = &mut next.cells[page.0 as usize] {
                change.apply(&mut cell.rights, &mut cell.flags);
            }
        }
        self.become_allowed(next)
    }

    fn grow_down(&mut self, page: Page, limits: StackLimits) -> Result<Pages, GrowError> {
        let above = (page.0..self.cells.len() as u64).map(Page).find(|&p| self.at(p).is_some());
        let start = above.ok_or(GrowError::NoArea)?;
        let area = self.area_of(start).expect("the page is mapped");
        if start == page {
            return Ok(Pages::at(page, 0));
        }
        let grows = |vma: &Vma| vma.flags.contains(VmaFlags::GROWS_DOWN);
        if !grows(&area) || area.backing != Backing::Anonymous {
            return Err(GrowError::NoArea);
        }
        if page < limits.floor {
            return Err(GrowError::TooLow);
        }
        if area.pages.end.0 - page.0 > limits.pages_max {
            return Err(GrowError::TooLong);
        }
        // Looks at each page of the guard gap, and for the first area in it only.
        let guard = (page.0.saturating_sub(self.guard_pages)..page.0).rev().map(Page);
        if let Some(hit) = guard.into_iter().find(|&p| self.at(p).is_some()) {
            let low = self.area_of(hit).expect("the page is mapped");
            if !low.rights.is_empty() && !grows(&low) {
                return Err(GrowError::Blocked(hit));
            }
        }
        let gained = Pages::new(page, start);
        gained.iter().for_each(|page| self.cells[page.0 as usize] = Some(cell_of(&area, start)));
        Ok(gained)
    }

    fn grow_up(&mut self, page: Page, end: Page) -> Result<Pages, GrowError> {
        let area = self.area_of(page).ok_or(GrowError::NoArea)?;
        let start = area.pages.end;
        let gained = Pages::new(start, start.max(end));
        if let Some(blocked) = gained.iter().find(|&page| !self.is_free(page)) {
            return Err(GrowError::Blocked(blocked));
        }
        let area = Vma { pages: Pages::new(area.pages.start, gained.end), ..area };
        gained.iter().for_each(|page| self.cells[page.0 as usize] = Some(cell_of(&area, page)));
        Ok(gained)
    }

    /// Whether `page` is in no area and not guarded by the next area above.
    fn is_free(&self, page: Page) -> bool {
        let guarded = page.0 + self.guard_pages;
        let next = (page.0..self.cells.len() as u64).map(Page).find(|&p| self.at(p).is_some());
        next.is_none_or(|next| {
            let cell = self.at(next).expect("the page is mapped");
            next > page && (next.0 > guarded || !cell.flags.contains(VmaFlags::GROWS_DOWN))
        })
    }

    /// Every place where a gap of `count` pages begins, upwards.
    fn gaps(&self, count: u64, within: Pages, align: u64) -> Vec<Page> {
        let free: Vec<bool> = (0..within.end.0).map(|page| self.is_free(Page(page))).collect();
        let fits = |start: Page| (start.0..start.0 + count).all(|page| free[page as usize]);
        let starts = within.iter().filter(|start| start.0 + count <= within.end.0);
        starts.filter(|start| start.0 % align == 0 && fits(*start)).collect()
    }
}

fn cell_of(vma: &Vma, page: Page) -> Cell {
    Cell { file: vma.file_page(page), rights: vma.rights, flags: vma.flags }
}

fn vma_of(pages: Pages, cell: Cell) -> Vma {
    let vma = Vma::anonymous(pages, cell.rights).with_flags(cell.flags);
    match cell.file {
        None => vma,
        Some((file, offset)) => Vma { backing: Backing::File { file, offset }, ..vma },
    }
}

/// What a range of pages is changed to.
#[derive(Clone, Copy, Debug)]
enum Change {
    Rights(Rights),
    Toggle(VmaFlags),
}

impl Change {
    fn apply(self, rights: &mut Rights, flags: &mut VmaFlags) {
        match self {
            Change::Rights(changed) => *rights = changed,
            Change::Toggle(changed) => flags.toggle(changed),
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Operation {
    Insert(Vma),
    Remove(Pages),
    Change(Pages, Change),
    GrowDown(Page, StackLimits),
    GrowUp(Page, Page),
}

/// Why an operation did nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Refusal {
    Map(MapError),
    Cut,
    Grow(GrowError),
}

/// Does the operation on both, and checks that they answer alike and are alike then; whether it was
/// refused, and why.
fn step(areas: &mut Areas, model: &mut Model, operation: Operation) -> Option<Refusal> {
    let refusal = match operation {
        Operation::Insert(vma) => {
            let result = model.insert(&vma);
            assert_eq!(areas.insert(vma), result, "{operation:?}");
            result.err().map(Refusal::Map)
        }
        Operation::Remove(pages) => {
            let (mut pieces, expected) = (Vec::new(), model.remove(pages));
            let result = areas.remove(pages, |piece| pieces.push(piece));
            assert_eq!(result.map(|()| pieces), expected, "{operation:?}");
            result.err().map(|TooMany| Refusal::Cut)
        }
        Operation::Change(pages, change) => {
            let result = model.change(pages, change);
            let changed = areas.change(pages, |vma| change.apply(&mut vma.rights, &mut vma.flags));
            assert_eq!(changed, result, "{operation:?}");
            result.err().map(|TooMany| Refusal::Cut)
        }
        Operation::GrowDown(page, limits) => {
            let result = model.grow_down(page, limits);
            assert_eq!(areas.growth(page, limits), result, "{operation:?}");
            assert_eq!(areas.grow_down(page, limits), result, "{operation:?}");
            result.err().map(Refusal::Grow)
        }
        Operation::GrowUp(page, end) => {
            let result = model.grow_up(page, end);
            assert_eq!(areas.grow_up(page, end), result, "{operation:?}");
            result.err().map(Refusal::Grow)
        }
    };
    areas.check_invariants();
    let expected = model.areas();
    assert!(areas.iter().eq(&expected), "{operation:?}: {areas:#?} is not {expected:#?}");
    let mapped = model.cells.iter().flatten().count() as u64;
    assert_eq!(areas.pages_total(), mapped, "{operation:?}");
    assert_eq!(areas.len() + areas.room(), model.len_max, "{operation:?}");
    refusal
}

/// Checks that searches find in `areas` what they find in the model.
fn compare_searches(areas: &mut Areas, model: &Model, random: &mut Pcg64Mcg) {
    let end = model.cells.len() as u64;
    let all = model.areas();
    for page in (0..end).map(Page) {
        let expected = all.iter().find(|vma| vma.pages.contains(page));
        assert_eq!(areas.find(page), expected);
        assert_eq!(areas.find_recent(page), expected);
        assert_eq!(areas.at_or_above(page), all.iter().find(|vma| page < vma.pages.end));
        assert_eq!(areas.below(page), all.iter().rfind(|vma| vma.pages.start < page));
    }
    for _ in 0..4 {
        let range = some_pages(random, end);
        assert!(areas.iter_range(range).eq(all.iter().filter(|vma| vma.part(range).is_some())));
        let hole = range.iter().find(|&page| model.at(page).is_none());
        assert_eq!(areas.covered(range), hole.map_or(Ok(()), Err));

        let within = some_pages(random, end);
        let count = random.random_range(1..=end / 4);
        let align = 1 << random.random_range(0..4);
        let gaps = model.gaps(count, within, align);
        let down = areas.find_gap_down(count, within.end, within.start, align);
        assert_eq!(down, gaps.last().copied(), "{count} pages, aligned to {align}, in {within:?}");
        let up = areas.find_gap_up(count, within.start, within.end, align);
        assert_eq!(up, gaps.first().copied(), "{count} pages, aligned to {align}, in {within:?}");
    }
}

/// A range below `end`, now and then an empty one.
fn some_pages(random: &mut Pcg64Mcg, end: u64) -> Pages {
    let (a, b) = (random.random_range(0..=end), random.random_range(0..=end));
    Pages::new(Page(a.min(b)), Page(a.max(b)))
}

fn some_rights(random: &mut Pcg64Mcg) -> Rights {
    [Rights::empty(), Rights::READ, RW, RW][random.random_range(0..4)]
}

fn some_operation(random: &mut Pcg64Mcg, end: u64) -> Operation {
    let start = random.random_range(0..end);
    let count = random.random_range(1..=(end - start).min(end / 8));
    let pages = Pages::at(Page(start), count);
    match random.random_range(0..10) {
        0..4 => {
            let rights = some_rights(random);
            // Half of the files continue a neighbour's, if the neighbour has the file.
            let offset = start + 100 * random.random_range(0..2);
            let file = (random.random_range(0..3) == 0).then_some((FileRef(1), offset));
            let stack = !(file.is_some() || random.random_bool(0.7));
            let flags = if stack { VmaFlags::GROWS_DOWN } else { VmaFlags::empty() };
            Operation::Insert(vma_of(pages, Cell { file, rights, flags }))
        }
        4 => Operation::Remove(pages),
        5 => Operation::Change(pages, Change::Rights(some_rights(random))),
        6 => {
            let flag = [VmaFlags::LOCKED, VmaFlags::GROWS_DOWN][random.random_range(0..2)];
            Operation::Change(pages, Change::Toggle(flag))
        }
        7 => Operation::GrowUp(pages.start, pages.end.up(count)),
        _ => {
            let floor = Page(random.random_range(0..16));
            let limits = StackLimits { pages_max: random.random_range(1..end / 4), floor };
            Operation::GrowDown(pages.start, limits)
        }
    }
}

#[test]
fn random_operations_agree_with_an_array_of_pages() {
    let mut refusals = Vec::new();
    for (seed, pages, guard_pages, len_max) in
        [(1, 64, 0, AREAS_MAX), (2, 64, 3, 12), (3, 100, 8, 20), (4, 256, 5, 999), (5, 256, 40, 25)]
    {
        println!("seed {seed}");
        let mut random = Pcg64Mcg::seed_from_u64(seed);
        let mut model = Model::new(pages, guard_pages, len_max);
        let mut areas = Areas::new(guard_pages, len_max);
        for turn in 0..4000 {
            let operation = some_operation(&mut random, pages as u64 / 8 * 7);
            refusals.extend(step(&mut areas, &mut model, operation));
            if turn % 8 == 0 {
                compare_searches(&mut areas, &model, &mut random);
            }
            if turn % 100 == 0 {
                // A fork's copy is equal, and independent of what comes later.
                let copy = areas.clone();
                let before = model.areas();
                let range = some_pages(&mut random, pages as u64);
                step(&mut areas, &mut model, Operation::Remove(range));
                copy.check_invariants();
                assert!(copy.iter().eq(&before));
            }
        }
    }
    let met = |is: fn(&Refusal) -> bool| refusals.iter().filter(|refusal| is(refusal)).count();
    let times = [
        met(|refusal| matches!(refusal, Refusal::Map(MapError::Occupied(_)))),
        met(|refusal| matches!(refusal, Refusal::Map(MapError::TooMany))),
        met(|refusal| matches!(refusal, Refusal::Cut)),
        met(|refusal| matches!(refusal, Refusal::Grow(GrowError::NoArea))),
        met(|refusal| matches!(refusal, Refusal::Grow(GrowError::TooLong))),
        met(|refusal| matches!(refusal, Refusal::Grow(GrowError::TooLow))),
        met(|refusal| matches!(refusal, Refusal::Grow(GrowError::Blocked(_)))),
    ];
    assert!(times.iter().all(|&times| times >= 20), "each refusal is met often: {times:?}");
    assert_eq!(times.iter().sum::<usize>(), refusals.len(), "{times:?}");
}

/// Each operation of a small scope on each range of `pages` pages.
fn every_operation(pages: u64) -> Vec<Operation> {
    let limits = StackLimits { pages_max: 4, floor: Page(1) };
    let mut operations = Vec::new();
    for start in 0..pages {
        operations.push(Operation::GrowDown(Page(start), limits));
        for end in start + 1..=pages {
            let pages = Pages::new(Page(start), Page(end));
            operations.push(Operation::Insert(Vma::anonymous(pages, RW)));
            operations.push(Operation::Change(pages, Change::Rights(Rights::READ)));
            operations.push(Operation::Change(pages, Change::Toggle(VmaFlags::GROWS_DOWN)));
            operations.push(Operation::Remove(pages));
            operations.push(Operation::GrowUp(Page(start), Page(end)));
        }
    }
    operations
}

/// Each mapping, cut and change of a file on each range of `pages` pages. Longer ranges continue
/// each other in the file, single pages do not.
fn every_operation_on_a_file(pages: u64) -> Vec<Operation> {
    let mut operations = Vec::new();
    for start in 0..pages {
        for end in start + 1..=pages {
            let pages = Pages::new(Page(start), Page(end));
            let offset = if pages.count() == 1 { 0 } else { start };
            let vma = Vma::file(pages, RW, FileRef(0), offset, Sharing::Private);
            operations.push(Operation::Insert(vma));
            operations.push(Operation::Change(pages, Change::Rights(Rights::READ)));
            operations.push(Operation::Remove(pages));
        }
    }
    operations
}

/// Tries every sequence of `depth` operations from here and returns the number of steps taken.
fn explore(areas: &Areas, model: &Model, operations: &[Operation], depth: u32) -> u64 {
    let mut steps = 0;
    for &operation in operations {
        let (mut areas, mut next) = (areas.clone(), model.clone());
        step(&mut areas, &mut next, operation);
        steps += 1;
        // Operations that change nothing lead nowhere that is not reached without them.
        if depth > 1 && next != *model {
            steps += explore(&areas, &next, operations, depth - 1);
        }
    }
    steps
}

#[test]
fn every_four_operations_on_a_few_pages_agree_with_the_array() {
    for (pages, guard_pages, len_max) in [(5, 1, AREAS_MAX), (5, 0, 2)] {
        let areas = Areas::new(guard_pages, len_max);
        let model = Model::new(pages, guard_pages, len_max);
        let steps = explore(&areas, &model, &every_operation(pages as u64), 4);
        println!("{steps} steps on {pages} pages, at most {len_max} areas");
    }
}

#[test]
fn every_four_operations_on_six_pages_of_a_file_agree_with_the_array() {
    for len_max in [AREAS_MAX, 2] {
        let (areas, model) = (Areas::new(0, len_max), Model::new(6, 0, len_max));
        let steps = explore(&areas, &model, &every_operation_on_a_file(6), 4);
        println!("{steps} steps, at most {len_max} areas");
    }
}
