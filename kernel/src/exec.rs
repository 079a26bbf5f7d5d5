//! Starting a program: an ELF file becomes an address space, as `fs/binfmt_elf.c` does it.
//!
//! The segments are mapped from the file, privately, and nothing is read before it is used. The stack
//! begins with what the program is told:
//!
//! ```text
//!     stack pointer ▶ argc │ argv … 0 │ envp … 0 │ auxiliary vector … 0 │ random │ strings │ top
//! ```

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use linux_raw_sys::auxvec;
use vellum_mm::addr::{FileRef, PAGE_BYTES, Page, VirtAddr};
use vellum_mm::spaces::AddressSpace;
use vellum_mm::spaces::layout::{Layout, USER_END};
use vellum_mm::spaces::map::{Map, Place};
use vellum_mm::spaces::vma::{Backing, Rights, Sharing, VmaFlags};

use crate::arch::user::Context;
use crate::arguments::{Start, Strings};
use crate::calls::{Answer, Errno, Halt};
use crate::elf::Program;
use crate::files::tree::{Kind, NodeId};
use crate::kernel::Kernel;
use crate::tasks::{Process, Thread, Tid, Wait};
use crate::words::Words;

/// Bytes of all arguments and environment together, with 8 for each one's address. Linux permits 2 MiB
/// for a stack of 8; here they pass through the kernel's heap, which may be 5 MiB in all.
const ARGUMENTS_MAX: usize = 256 << 10;
/// Bytes of one of them, with its end, as on Linux.
const ARGUMENT_BYTES_MAX: usize = 128 << 10;
/// Pages that the stack has at first; it grows.
const STACK_PAGES: u64 = 33;
/// Interpreters (`#!`) that may start each other.
const INTERPRETERS_MAX: u32 = 4;

impl Kernel {
    /// `execve`.
    pub(crate) fn execute(
        &mut self,
        tid: Tid,
        context: &mut Context,
        path: u64,
        arguments: u64,
        environment: u64,
    ) -> Answer {
        let path = self.string_in(tid, path, 4096)?;
        let mut left = ARGUMENTS_MAX;
        let mut start = Start {
            arguments: self.strings_in(tid, arguments, &mut left)?,
            environment: self.strings_in(tid, environment, &mut left)?,
        };
        if start.arguments.count() == 0 {
            // Programs take it for granted that they have a name.
            start.arguments.push(b"");
        }
        self.start_program(tid, context, &path, start)?;
        Err(Halt::Replaced)
    }

    fn strings_in(&mut self, tid: Tid, mut at: u64, left: &mut usize) -> Result<Strings, Halt> {
        let mut strings = Strings::default();
        while at != 0 {
            let string = self.word_in(tid, at)?;
            if string == 0 {
                break;
            }
            let longest = ARGUMENT_BYTES_MAX.min(*left);
            let string = match self.string_in(tid, string, longest) {
                Err(Halt::Errno(Errno::ENAMETOOLONG)) => Err(Errno::E2BIG.into()),
                other => other,
            }?;
            if string.len() >= ARGUMENT_BYTES_MAX {
                return Err(Errno::E2BIG.into());
            }
            *left = left.checked_sub(string.len() + 9).ok_or(Errno::E2BIG)?;
            strings.push(&string);
            at = at.wrapping_add(8);
        }
        Ok(strings)
    }

    /// The first process, with the console as its three files.
    ///
    /// # Errors
    /// Why its program cannot be started, in a line.
    pub(crate) fn start_first(&mut self, path: &str, start: &Start) -> Result<(), String> {
        let refused = |what: &str| alloc::format!("{path}: {what}");
        let at = crate::kernel::now();
        let space = self.vm.new_space(at, self.pc, Layout::default());
        let space = space.map_err(|_| refused("no memory for a process"))?;
        let slot = self.tasks.add_space(space);
        let tid = self.tasks.new_tid().ok_or_else(|| refused("no process number"))?;
        self.first = tid;
        let first = Process::first(tid, slot);
        self.files.tree[first.directory].uses += 1;
        self.tasks.processes.insert(tid, first);
        self.tasks.spaces[slot].as_mut().expect("it was made").users = 1;
        self.tasks.threads.insert(tid, Thread::new(tid, Box::new(Context::new(0, 0))));
        let console = self.files.tree.find(0, b"/dev/console", true);
        let console = console.map_err(|_| refused("no console"))?;
        for _ in 0..3 {
            let open = self.open_node(tid, console, linux_raw_sys::general::O_RDWR);
            let open = open.map_err(|_| refused("no console"))?;
            let added = self.add_descriptor(tid, open, 0, false);
            added.map_err(|_| refused("no console"))?;
        }
        let mut context = self.tasks.threads[tid].context.take().expect("it does not run");
        // Nobody else runs yet. Ends: a request that is done is not asked for again.
        let result = loop {
            match self.start_program(tid, &mut context, path.as_bytes(), start.clone()) {
                Err(Halt::Wait(Wait::Request(request), _)) => self.finish(tid, request),
                other => break other,
            }
        };
        self.tasks.threads[tid].context = Some(context);
        match result {
            Ok(()) => self.make_ready(tid),
            Err(Halt::Errno(Errno::ENOENT)) => {
                let tree = &self.files.tree;
                let names = tree.find(0, b"/bin", true).and_then(|bin| tree.names(bin));
                let programs = names.into_iter().flatten().filter(|&(_, &node)| {
                    !matches!(tree[node].kind, Kind::Link(_)) // hundreds that busybox is
                });
                let names = programs.map(|(name, _)| String::from_utf8_lossy(name).into_owned());
                let names: Vec<String> = names.collect();
                return Err(refused(&alloc::format!(
                    "no such program in the archive; /bin holds {}",
                    names.join(" ")
                )));
            }
            Err(Halt::Errno(errno)) => {
                let why = crate::words::of_errno(errno);
                return Err(refused(&alloc::format!("cannot be started: {why}")));
            }
            Err(halt) => return Err(refused(&alloc::format!("cannot be started: {halt:?}"))),
        }
        Ok(())
    }

    /// Replaces the program of a thread's process. Until nothing can be refused any more, nothing
    /// changes.
    fn start_program(
        &mut self,
        tid: Tid,
        context: &mut Context,
        path: &[u8],
        mut start: Start,
    ) -> Result<(), Halt> {
        let process = self.tasks.threads[tid].process;
        let base = self.tasks.processes[process].directory;
        self.files.tree.show_own_program(&self.tasks.processes[process].program);
        let mut node = self.files.tree.find(base, path, true)?;
        let mut head = vec![0; PAGE_BYTES as usize];
        let mut interpreters = 0;
        let (file, count) = loop {
            let file = self.program_file(node)?;
            let count = self.read_file(tid, file, 0, &mut head)?;
            let Some(line) = head[..count].strip_prefix(b"#!") else { break (file, count) };
            interpreters += 1;
            if interpreters > INTERPRETERS_MAX {
                return Err(Errno::ELOOP.into());
            }
            node = self.interpreter(base, line, path, &mut start)?;
        };
        let program = Program::parse(&head[..count])?;
        // An interpreter is the first of its own arguments.
        let first = start.arguments.iter().next().and_then(|word| word.strip_suffix(b"\0"));
        let started = if interpreters == 0 { path } else { first.unwrap_or(path) };
        let place = self.files.tree.absolute(base, started)?;
        let space = self.load(file, &program)?;
        if !self.end_other_threads(tid) {
            // Those use the old space, and another processor is about to take them out of it.
            self.vm.destroy(crate::kernel::now(), self.pc, space);
            return Err(Halt::Wait(Wait::Alone, u64::MAX));
        }
        let name = path.rsplit(|&byte| byte == b'/').next().unwrap_or(path);
        let name = String::from_utf8_lossy(name).into_owned();
        self.become_program(tid, context, space, name);
        self.tasks.processes[process].program = place;
        // From here on the old program is gone: what fails ends the process.
        let told = self.write_stack(tid, context, &program, path, &start);
        let told = told.and_then(|()| self.clear_tails(tid, &program));
        if told.is_err() {
            self.end_process(process, crate::tasks::End::Signal(9));
            return Err(Halt::Dead);
        }
        Ok(())
    }

    fn program_file(&mut self, node: NodeId) -> Result<FileRef, Errno> {
        let entry = &self.files.tree[node];
        match entry.kind {
            Kind::Stored(_) | Kind::File(..) if entry.permissions & 0o111 != 0 => {
                self.contents(node)
            }
            _ => Err(Errno::EACCES),
        }
    }

    /// The program that a `#!` line names; the arguments become its own.
    fn interpreter(
        &self,
        base: NodeId,
        line: &[u8],
        path: &[u8],
        start: &mut Start,
    ) -> Result<NodeId, Errno> {
        let line = line.split(|&byte| byte == b'\n').next().unwrap_or(line).trim_ascii();
        let mut words = line.splitn(2, u8::is_ascii_whitespace);
        let program = words.next().filter(|word| !word.is_empty()).ok_or(Errno::ENOEXEC)?;
        let argument = words.next().map(<[u8]>::trim_ascii).filter(|word| !word.is_empty());
        let mut arguments = Strings::default();
        arguments.push(program);
        if let Some(argument) = argument {
            arguments.push(argument);
        }
        arguments.push(path);
        for string in start.arguments.iter().skip(1) {
            arguments.push(&string[..string.len() - 1]);
        }
        start.arguments = arguments;
        self.files.tree.find(base, program, true)
    }

    /// A space with the program's segments and a stack.
    fn load(&mut self, file: FileRef, program: &Program) -> Result<AddressSpace, Halt> {
        let end = program.segments.iter().map(|part| part.address + part.bytes).max();
        let layout = Layout::with_heap_at(VirtAddr(end.unwrap_or(0)).page_up().address());
        let at = crate::kernel::now();
        let space = self.vm.new_space(at, self.pc, layout);
        self.pump();
        let Ok(mut space) = space else {
            self.make_room()?;
            return Err(Halt::Again);
        };
        let mapped = self.map_program(&mut space, file, program);
        if let Err(errno) = mapped {
            self.vm.destroy(at, self.pc, space);
            return Err(errno.into());
        }
        Ok(space)
    }

    fn map_program(
        &mut self,
        space: &mut AddressSpace,
        file: FileRef,
        program: &Program,
    ) -> Result<(), Errno> {
        let at = crate::kernel::now();
        for part in &program.segments {
            let first = VirtAddr(part.address).page();
            let file_end = VirtAddr(part.address + part.file_bytes).page_up();
            let end = VirtAddr(part.address + part.bytes).page_up();
            let offset = part.offset / PAGE_BYTES;
            if part.file_bytes > 0 {
                let map = Map {
                    place: Place::FixedFree(first),
                    pages: file_end.0 - first.0,
                    rights: part.rights,
                    backing: Backing::File { file, offset },
                    sharing: Sharing::Private,
                    flags: VmaFlags::empty(),
                };
                self.vm.map(at, self.pc, space, map).map_err(|_| Errno::ENOEXEC)?;
            }
            let zeros = if part.file_bytes > 0 { file_end } else { first };
            if end > zeros {
                let map = Map::anonymous(Place::FixedFree(zeros), end.0 - zeros.0);
                self.vm.map(at, self.pc, space, map).map_err(|_| Errno::ENOEXEC)?;
            }
        }
        let top = space.layout().stack_top.page();
        let mut stack = Map::anonymous(Place::FixedFree(Page(top.0 - STACK_PAGES)), STACK_PAGES);
        stack.flags = VmaFlags::GROWS_DOWN | VmaFlags::STACK;
        self.vm.map(at, self.pc, space, stack).map_err(|_| Errno::ENOMEM)?;
        Ok(())
    }

    /// Ends the threads of a process but one; whether that is alone already.
    fn end_other_threads(&mut self, tid: Tid) -> bool {
        let process = self.tasks.threads[tid].process;
        for other in self.tasks.processes[process].threads.clone() {
            if other != tid {
                self.end_thread(other);
            }
        }
        self.tasks.processes[process].threads.len() == 1
    }

    /// Puts a new space in place of the old one, and forgets what does not outlive a program.
    fn become_program(
        &mut self,
        tid: Tid,
        context: &mut Context,
        space: AddressSpace,
        name: String,
    ) {
        self.leave_words(tid);
        let process = self.tasks.threads[tid].process;
        let new = self.tasks.add_space(space);
        self.tasks.spaces[new].as_mut().expect("it was added").users = 1;
        let entry = &mut self.tasks.processes[process];
        let old = core::mem::replace(&mut entry.space, new);
        let mut short = [0; Thread::NAME_BYTES];
        for (to, byte) in short.iter_mut().take(Thread::NAME_BYTES - 1).zip(name.bytes()) {
            *to = byte;
        }
        entry.name = name;
        entry.locks_all = false;
        entry.handlers.reset();
        let descriptors = entry.descriptors.iter_mut();
        let closed: Vec<_> = descriptors
            .filter(|entry| entry.is_some_and(|entry| entry.close_on_exec))
            .filter_map(Option::take)
            .collect();
        for entry in closed {
            self.release(entry.open);
        }
        self.leave_space(process, old);
        let thread = &mut self.tasks.threads[tid];
        (thread.set_tid, thread.signal_stack) = (0, (0, 0));
        thread.name = short;
        if let Some(parent) = thread.vfork_parent.take() {
            self.end_vfork(tid, parent);
        }
        *context = Context::new(0, 0);
        let space = &self.tasks.spaces[new].as_ref().expect("it was added").space;
        let (id, root) = (space.id(), space.root());
        self.pc.load(crate::arch::cpu::id(), Some(id), root);
    }

    /// Writes what the program is told, and points the registers at it.
    fn write_stack(
        &mut self,
        tid: Tid,
        context: &mut Context,
        program: &Program,
        path: &[u8],
        start: &Start,
    ) -> Result<(), Halt> {
        let mut top = USER_END.0 - 8;
        let mut place = |kernel: &mut Kernel, bytes: &[u8]| -> Result<u64, Halt> {
            top -= bytes.len() as u64;
            kernel.copy_out_now(tid, top, bytes)?;
            Ok(top)
        };
        let name = place(self, &[path, b"\0"].concat())?;
        let environment = place(self, start.environment.bytes())?;
        let arguments = place(self, start.arguments.bytes())?;
        let mut random = [0; 16];
        self.random(&mut random);
        top = (top - 16) & !15;
        self.copy_out_now(tid, top, &random)?;
        let auxiliary = [
            (auxvec::AT_PHDR, program.headers.0),
            (auxvec::AT_PHENT, 56),
            (auxvec::AT_PHNUM, program.headers.1),
            (auxvec::AT_PAGESZ, PAGE_BYTES),
            (auxvec::AT_ENTRY, program.entry),
            (auxvec::AT_UID, 0),
            (auxvec::AT_EUID, 0),
            (auxvec::AT_GID, 0),
            (auxvec::AT_EGID, 0),
            (auxvec::AT_SECURE, 0),
            (auxvec::AT_CLKTCK, 100),
            (auxvec::AT_RANDOM, top),
            (auxvec::AT_EXECFN, name),
            (auxvec::AT_NULL, 0),
        ];
        let mut words = Words::default();
        words.u64(start.arguments.count() as u64);
        for (mut at, strings) in [(arguments, &start.arguments), (environment, &start.environment)]
        {
            for string in strings.iter() {
                words.u64(at);
                at += string.len() as u64;
            }
            words.u64(0);
        }
        for (kind, value) in auxiliary {
            words.u64(kind.into()).u64(value);
        }
        let stack = (top - words.bytes().len() as u64) & !15;
        self.copy_out_now(tid, stack, words.bytes())?;
        (context.rip, context.rsp) = (program.entry, stack);
        Ok(())
    }

    /// Zeros what a file's last page holds beyond a segment that goes on with zeros.
    fn clear_tails(&mut self, tid: Tid, program: &Program) -> Result<(), Halt> {
        for part in program.segments.iter().filter(|part| part.bytes > part.file_bytes) {
            let end = part.address + part.file_bytes;
            let tail = (end.next_multiple_of(PAGE_BYTES) - end) as usize;
            if part.file_bytes > 0 && tail > 0 && part.rights.contains(Rights::WRITE) {
                self.copy_out_now(tid, end, &vec![0; tail])?;
            }
        }
        Ok(())
    }
}
