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
use vellum_mm::spaces::layout::{Layout, PROGRAM_START, USER_END};
use vellum_mm::spaces::map::{Map, Place};
use vellum_mm::spaces::vma::{Backing, Rights, Sharing, VmaFlags};

use crate::arch::user::Context;
use crate::calls::{Answer, Errno, Halt};
use crate::files::tree::{Kind, NodeId};
use crate::kernel::Kernel;
use crate::tasks::{Process, Thread, Tid, Wait};
use crate::words::Words;

/// Bytes of all arguments and environment together, as for a stack limit of 8 MiB.
const ARGUMENTS_MAX: usize = 2 << 20;
/// Pages that the stack has at first; it grows.
const STACK_PAGES: u64 = 33;
/// Interpreters (`#!`) that may start each other.
const INTERPRETERS_MAX: u32 = 4;

/// A part of a program.
struct Segment {
    address: u64,
    offset: u64,
    file_bytes: u64,
    bytes: u64,
    rights: Rights,
}

/// A program, as its header describes it.
struct Program {
    entry: u64,
    /// Where its program headers are in memory, and how many.
    headers: (u64, u64),
    segments: Vec<Segment>,
}

/// What a program is started with.
#[derive(Clone, Default)]
pub(crate) struct Start {
    /// Arguments, the program's name first.
    pub(crate) arguments: Vec<Vec<u8>>,
    /// Environment, `NAME=value`.
    pub(crate) environment: Vec<Vec<u8>>,
}

impl Start {
    /// A program from the command line, and where it is.
    pub(crate) fn of(program: &[String]) -> (String, Start) {
        let arguments = program.iter().map(|word| word.as_bytes().to_vec()).collect();
        let environment = ["PATH=/bin", "HOME=/", "TERM=dumb"];
        let environment = environment.iter().map(|word| word.as_bytes().to_vec()).collect();
        (program[0].clone(), Start { arguments, environment })
    }
}

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
        let start = Start {
            arguments: self.strings_in(tid, arguments, &mut left)?,
            environment: self.strings_in(tid, environment, &mut left)?,
        };
        self.start_program(tid, context, &path, start)?;
        Err(Halt::Replaced)
    }

    fn strings_in(
        &mut self,
        tid: Tid,
        mut at: u64,
        left: &mut usize,
    ) -> Result<Vec<Vec<u8>>, Halt> {
        let mut strings = Vec::new();
        while at != 0 {
            let string = self.word_in(tid, at)?;
            if string == 0 {
                break;
            }
            let string = self.string_in(tid, string, *left)?;
            *left = left.checked_sub(string.len() + 9).ok_or(Errno::E2BIG)?;
            strings.push(string);
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
        let started = if interpreters == 0 { path } else { &start.arguments[0] };
        let place = self.files.tree.absolute(base, started)?;
        let space = self.load(file, &program)?;
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
        let mut arguments = vec![program.to_vec()];
        arguments.extend(argument.map(<[u8]>::to_vec));
        arguments.push(path.to_vec());
        arguments.extend(start.arguments.drain(..).skip(1));
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

    /// Puts a new space in place of the old one, and forgets what does not outlive a program.
    fn become_program(
        &mut self,
        tid: Tid,
        context: &mut Context,
        space: AddressSpace,
        name: String,
    ) {
        let process = self.tasks.threads[tid].process;
        for other in self.tasks.processes[process].threads.clone() {
            if other != tid {
                self.end_thread(other);
            }
        }
        let new = self.tasks.add_space(space);
        self.tasks.spaces[new].as_mut().expect("it was added").users = 1;
        let entry = &mut self.tasks.processes[process];
        let old = core::mem::replace(&mut entry.space, new);
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
        (thread.clear_tid, thread.set_tid, thread.signal_stack) = (0, 0, (0, 0));
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
            top -= bytes.len() as u64 + 1;
            kernel.copy_out_now(tid, top, &[bytes, b"\0"].concat())?;
            Ok(top)
        };
        let name = place(self, path)?;
        let strings = start.environment.iter().rev();
        let mut environment =
            strings.map(|text| place(self, text)).collect::<Result<Vec<_>, _>>()?;
        environment.reverse();
        let strings = start.arguments.iter().rev();
        let mut arguments = strings.map(|text| place(self, text)).collect::<Result<Vec<_>, _>>()?;
        arguments.reverse();
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
        words.u64(arguments.len() as u64);
        for &word in arguments.iter().chain([&0]).chain(&environment).chain([&0]) {
            words.u64(word);
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

impl Program {
    /// Reads the header of a static ELF program for x86-64 (System V ABI, chapters 4 and 5).
    fn parse(head: &[u8]) -> Result<Program, Errno> {
        let bytes = |at: usize, count: usize| head.get(at..at + count).ok_or(Errno::ENOEXEC);
        let word = |at: usize| -> Result<u64, Errno> {
            Ok(u64::from_le_bytes(bytes(at, 8)?.try_into().expect("eight bytes")))
        };
        let half = |at: usize| -> Result<u32, Errno> {
            Ok(u32::from_le_bytes(bytes(at, 4)?.try_into().expect("four bytes")))
        };
        let short = |at: usize| -> Result<u64, Errno> {
            Ok(u16::from_le_bytes(bytes(at, 2)?.try_into().expect("two bytes")).into())
        };
        let is_elf = bytes(0, 6)? == b"\x7fELF\x02\x01" && short(18)? == 62;
        let bias = match short(16)? {
            2 if is_elf => 0,
            3 if is_elf => PROGRAM_START.0,
            _ => return Err(Errno::ENOEXEC),
        };
        let (table, size, count) = (word(32)?, short(54)?, short(56)?);
        if size != 56 || count > 64 {
            return Err(Errno::ENOEXEC);
        }
        let mut segments = Vec::new();
        let mut headers = 0;
        for number in 0..count {
            let at = usize::try_from(table + number * 56).map_err(|_| Errno::ENOEXEC)?;
            let kind = half(at)?;
            if kind == 3 {
                return Err(Errno::ENOEXEC); // it wants a dynamic linker
            }
            if kind != 1 {
                continue;
            }
            let part = Segment::parse(half(at + 4)?, bias, &[8, 16, 32, 40].map(|o| word(at + o)))?;
            if (part.offset..part.offset + part.file_bytes).contains(&table) {
                headers = part.address + (table - part.offset);
            }
            segments.push(part);
        }
        let entry = word(24)?.checked_add(bias).filter(|&entry| entry < USER_END.0);
        let entry = entry.ok_or(Errno::ENOEXEC)?;
        Ok(Program { entry, headers: (headers, count), segments })
    }
}

impl Segment {
    fn parse(flags: u32, bias: u64, words: &[Result<u64, Errno>; 4]) -> Result<Segment, Errno> {
        let [offset, address, file_bytes, bytes] = *words;
        let (offset, file_bytes, bytes) = (offset?, file_bytes?, bytes?);
        let address = address?.checked_add(bias).ok_or(Errno::ENOEXEC)?;
        let end = address.checked_add(bytes).ok_or(Errno::ENOEXEC)?;
        let fits = end <= USER_END.0 && file_bytes <= bytes && offset < 1 << 40;
        if !fits || address % PAGE_BYTES != offset % PAGE_BYTES {
            return Err(Errno::ENOEXEC);
        }
        let mut rights = Rights::empty();
        rights.set(Rights::EXECUTE, flags & 1 != 0);
        rights.set(Rights::WRITE, flags & 2 != 0);
        rights.set(Rights::READ, flags & 4 != 0);
        Ok(Segment { address, offset, file_bytes, bytes, rights })
    }
}
