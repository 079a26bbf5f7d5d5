//! Random events for the tests of the format: every variant, every width of every field.

// Each test file uses a part of it.
#![allow(dead_code)]

use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64;
use vellum_trace::event::{Access, Area, Call, Event, Exit, File, Kind, Meta, Role};

/// Number of variants of `Call`.
pub(crate) const CALLS: u32 = 26;

/// Makes events by chance.
pub(crate) struct Chance {
    random: Pcg64,
}

impl Chance {
    pub(crate) fn new(seed: u64) -> Chance {
        println!("seed {seed}");
        Chance { random: Pcg64::seed_from_u64(seed) }
    }

    pub(crate) fn below(&mut self, end: u32) -> u32 {
        self.random.random_range(0..end)
    }

    /// A number of any width.
    pub(crate) fn wide(&mut self) -> u64 {
        let shift = self.random.random_range(0..64);
        self.random.random::<u64>() >> shift
    }

    fn narrow(&mut self) -> u32 {
        self.wide() as u32 >> self.below(32)
    }

    fn truth(&mut self) -> bool {
        self.random.random()
    }

    fn text(&mut self) -> String {
        let length = self.below(12);
        (0..length).map(|_| ['a', '/', 'é', '\0', '"', '𝄞'][self.below(6) as usize]).collect()
    }

    fn optional(&mut self) -> Option<u32> {
        let number = [0, u32::MAX, self.narrow()][self.below(3) as usize];
        self.truth().then_some(number)
    }

    pub(crate) fn access(&mut self) -> Access {
        Access {
            page: if self.truth() { self.wide() } else { u64::from(self.below(600)) },
            thread: if self.below(20) == 0 { self.narrow() } else { self.below(3) },
            count: if self.truth() { 1 } else { self.narrow() },
            instructions: self.narrow(),
            kind: [Kind::Load, Kind::Store, Kind::Fetch][self.below(3) as usize],
        }
    }

    fn area(&mut self) -> Area {
        let file = self.optional().map(|file| (file, self.wide()));
        let roles = [Role::Program, Role::Bss, Role::Interpreter, Role::Stack, Role::Other];
        Area {
            page: self.wide(),
            pages: self.wide(),
            prot: self.narrow(),
            shared: self.truth(),
            file,
            role: roles[self.below(5) as usize],
        }
    }

    pub(crate) fn call(&mut self, which: u32) -> Call {
        let thread = self.narrow();
        let (start, bytes) = (self.wide(), self.wide());
        match which {
            0 => Call::Start { thread, process: self.narrow(), pid: self.narrow() },
            1 => Call::Exec {
                thread,
                process: self.narrow(),
                path: self.text(),
                arguments: (0..self.below(4)).map(|_| self.text()).collect(),
                brk: start,
                areas: (0..self.below(4)).map(|_| self.area()).collect(),
                touched: (0..self.below(4)).map(|_| self.wide()).collect(),
            },
            2 => Call::Fork {
                thread,
                process: self.narrow(),
                child: self.narrow(),
                pid: self.narrow(),
                flags: start,
            },
            3 => Call::Thread { thread, child: self.narrow() },
            4 => Call::ThreadExit { thread },
            5 => {
                let number = [i32::MIN, i32::MAX, -1, 9][self.below(4) as usize];
                let exits = [Exit::Code(number), Exit::Signal(number), Exit::Unknown];
                let exit = exits[self.below(3) as usize];
                Call::Exit { thread, process: self.narrow(), exit }
            }
            6 => Call::Reap { thread, process: self.narrow() },
            7 => {
                let (path, memory) = (self.text(), self.truth());
                Call::File(File { id: thread, path, bytes, memory })
            }
            8 => Call::Map {
                thread,
                start,
                bytes,
                prot: self.narrow(),
                flags: self.narrow(),
                file: self.optional(),
                offset: self.wide(),
            },
            9 => Call::Unmap { thread, start, bytes },
            10 => Call::Remap {
                thread,
                start,
                bytes,
                new_start: self.wide(),
                new_bytes: self.wide(),
                flags: self.narrow(),
            },
            11 => Call::Protect { thread, start, bytes, prot: self.narrow() },
            12 => Call::Brk { thread, end: start },
            13 => Call::Advise { thread, start, bytes, advice: self.narrow() },
            14 => Call::Lock { thread, start, bytes, all: self.truth() },
            15 => Call::Unlock { thread, start, bytes, all: self.truth() },
            16 => Call::Sync { thread, start, bytes, flags: self.narrow() },
            // A summary counts every page that is touched.
            17 => Call::Touch { thread, page: start, pages: bytes % 5000, write: self.truth() },
            18 => Call::Read { thread, file: self.narrow(), offset: start, bytes },
            19 => Call::Write { thread, file: self.narrow(), offset: start, bytes },
            20 => Call::FileSync { thread, file: self.narrow() },
            21 => Call::Truncate { thread, file: self.narrow(), bytes },
            22 => Call::Unlink { thread, file: self.narrow() },
            23 => Call::Failed { thread, call: self.narrow(), errno: self.narrow().cast_signed() },
            24 => Call::Tick { thread, count: start, instructions: bytes },
            25 => Call::Mark { thread, text: self.text() },
            _ => unreachable!("there are {CALLS} calls"),
        }
    }

    pub(crate) fn event(&mut self) -> Event {
        if self.below(10) == 0 {
            let which = self.below(CALLS);
            return Event::Call(Box::new(self.call(which)));
        }
        Event::Access(self.access())
    }

    pub(crate) fn events(&mut self, count: usize) -> Vec<Event> {
        (0..count).map(|_| self.event()).collect()
    }
}

/// Metadata with something in every field.
pub(crate) fn meta() -> Meta {
    Meta {
        command: vec!["ls".to_owned(), "-l \"é\"".to_owned()],
        date: "2026-01-02T03:04:05Z".to_owned(),
        host: "Linux 6.1 x86-64".to_owned(),
        parameters: vec![("seed".to_owned(), "1".to_owned())],
        ..Meta::new("a test")
    }
}
