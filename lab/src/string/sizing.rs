//! Policies that size processes, over a string: the working set and page-fault frequency.
//!
//! They decide how many frames a process holds, so memory is a bound here and not the question. With
//! *local* scope each process has a policy of its own, whose time passes only while it runs: the virtual
//! time of the papers. With *global* scope one policy sees all references as if one process made them.
//!
//! A page belongs to the process that loaded it. Another that uses it, too, keeps it alive for its owner.
//! If memory is full, a process takes from itself; only one that holds nothing takes from the largest.

use vellum_mm::addr::Frame;
use vellum_mm::replace::{PageId, Parameters, Registered, Sizing, Witness};

use super::bits::Bits;
use super::simulate::{NONE, Run};
use super::{Counts, Item, RefString};

/// Whose references a policy that sizes processes is told of.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Scope {
    /// Each process has its own policy.
    #[default]
    Local,
    /// One policy for all.
    Global,
}

/// Processes and their pages in one memory.
struct Memory<P> {
    policies: Vec<P>,
    times: Vec<u64>, // references of each
    bits: Bits,
    frame_of: Vec<u32>, // by page
    page_of: Vec<u32>,  // by frame
    owner: Vec<u32>,    // by frame
    free: Vec<u32>,
    counts: Counts,
}

/// Runs a policy over the string in at most as many frames as `parameters` say.
pub(super) fn run<P: Registered + Sizing>(
    string: &RefString,
    parameters: &Parameters,
    scope: Scope,
) -> Run {
    let mut memory = Memory::<P> {
        policies: Vec::new(),
        times: Vec::new(),
        bits: Bits::new(parameters.frames),
        frame_of: vec![NONE; string.pages() as usize],
        page_of: vec![NONE; parameters.frames],
        owner: vec![0; parameters.frames],
        free: (0..parameters.frames as u32).rev().collect(),
        counts: Counts { cold: string.pages().into(), ..Counts::default() },
    };
    let mut switches = string.switches().iter().peekable();
    let (mut process, mut at, mut held) = (0, 0, 0_u128);
    string.for_each(|item| match item {
        Item::Free(page) => memory.free_page(page),
        Item::Reference(page, write) => {
            while let Some(switch) = switches.next_if(|switch| switch.at <= at) {
                process = if scope == Scope::Local { switch.process as usize } else { 0 };
            }
            while memory.policies.len() <= process {
                memory.policies.push(P::new(parameters));
                memory.times.push(0);
            }
            memory.reference(process, page, write);
            held += memory.page_of.len() as u128 - memory.free.len() as u128;
            at += 1;
        }
    });
    memory.counts.writebacks += memory.bits.laundered;
    Run { counts: memory.counts, mean_frames: held as f64 / string.len().max(1) as f64 }
}

impl<P: Registered + Sizing> Memory<P> {
    fn reference(&mut self, process: usize, page: u32, write: bool) {
        self.times[process] += 1;
        self.bits.now = self.times[process];
        let resident = self.frame_of[page as usize];
        let fault = resident == NONE;
        let frame = if fault { self.load(process, page) } else { Frame(resident) };
        self.bits.dirty_if(frame, write);
        if !fault {
            self.bits.access(frame);
            let owner = self.owner[frame.index()] as usize;
            self.policies[owner].touch(frame, self.times[owner]);
        }
        // Ends: each frame that is given up is one less.
        while let Some(gone) = self.policies[process].release(fault, &mut self.bits) {
            self.leave(gone);
            self.free.push(gone.0);
        }
    }

    fn load(&mut self, process: usize, page: u32) -> Frame {
        self.counts.faults += 1;
        let frame = self.free.pop().map_or_else(|| self.evict(process), Frame);
        let index = frame.index();
        self.frame_of[page as usize] = frame.0;
        (self.page_of[index], self.owner[index]) = (page, process as u32);
        self.bits.set_accessed(frame, self.policies[process].load_is_use());
        self.bits.clean(frame);
        self.policies[process].insert(frame, PageId(page.into()));
        frame
    }

    /// A frame of the process itself; of the one that holds most if it holds nothing.
    fn evict(&mut self, process: usize) -> Frame {
        let largest = (0..self.policies.len()).max_by_key(|&at| (self.policies[at].len(), at));
        let from = if self.policies[process].is_empty() {
            largest.expect("at least this process")
        } else {
            process
        };
        self.bits.now = self.times[from];
        let frame = self.policies[from].evict(&mut self.bits).expect("memory is full");
        self.bits.now = self.times[process];
        self.leave(frame);
        frame
    }

    /// The page in `frame` is not in memory any more.
    fn leave(&mut self, frame: Frame) {
        let page = self.page_of[frame.index()];
        self.frame_of[page as usize] = NONE;
        self.counts.writebacks += u64::from(self.bits.is_dirty(frame));
    }

    fn free_page(&mut self, page: u32) {
        let frame = std::mem::replace(&mut self.frame_of[page as usize], NONE);
        if frame != NONE {
            self.policies[self.owner[frame as usize] as usize].remove(Frame(frame));
            self.free.push(frame);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::simulate::simulate_in;
    use super::*;
    use vellum_mm::replace::Choice;

    /// Two processes in turn, ten references each, to two pages of their own.
    fn two_processes() -> RefString {
        let mut string = RefString::new();
        for turn in 0..20 {
            string.push_switch(turn % 2);
            for step in 0..10 {
                let page = turn % 2 * 2 + step % 2;
                string.push(page, false);
            }
        }
        string
    }

    #[test]
    fn a_local_window_does_not_pass_while_another_process_runs() {
        let string = two_processes();
        let ws = Choice::parse("ws:delta=5").expect("a policy");
        let local = simulate_in(&string, &ws, 100, 0, Scope::Local);
        assert_eq!(local.counts.faults, 4, "each page once");
        let global = simulate_in(&string, &ws, 100, 0, Scope::Global);
        assert_eq!(global.counts.faults, 40, "both pages again at every turn");
        assert!(global.mean_frames < local.mean_frames);
    }

    #[test]
    fn a_process_takes_from_itself_when_memory_is_full() {
        // Process 1 loops over three pages in a memory that process 0 shares with two.
        let mut string = RefString::new();
        string.push_switch(0);
        string.push(0, true);
        string.push(1, true);
        string.push_switch(1);
        (0..30).for_each(|step| string.push(2 + step % 3, false));
        string.push_switch(0);
        string.push(0, false);
        string.push(1, false);
        let ws = Choice::parse("ws:delta=1000").expect("a policy");
        let run = simulate_in(&string, &ws, 4, 0, Scope::Local);
        assert_eq!(run.counts.faults, 2 + 30, "a loop of three in two frames; 0 and 1 stay");
        assert_eq!(run.counts.writebacks, 0);
    }
}
