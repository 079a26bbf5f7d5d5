//! What the loader built, read between the loader's end and the first instruction.
//!
//! Two sources. `/proc/self/maps` names the files, but mixes the program's memory with QEMU's own,
//! and QEMU never maps the program executable. QEMU's list of the program's areas has their true
//! rights, where the QEMU exports it. Where it does not, the program's areas are those of its two
//! ELF files with what follows them, and their rights those of the files' segments.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::ffi::Symbols;
use super::{exec, files};
use crate::sys;
use crate::wire::{FileKey, RawArea, Record};

const READ: u64 = 1;
const WRITE: u64 = 2;
const EXECUTE: u64 = 4;
/// QEMU took the right to write away because it has translated code from the page.
const WAS_WRITABLE: u64 = 0x10;
/// User addresses end here; QEMU lists a page above for old programs.
const ADDRESS_END: u64 = 1 << 47;

/// The numbers of [`vellum_trace::event::Role`].
const PROGRAM: u64 = 0;
const BSS: u64 = 1;
const INTERPRETER: u64 = 2;
const STACK: u64 = 3;
const OTHER: u64 = 4;

/// The records with which an image begins: the files it maps, and its areas.
pub(crate) fn birth(symbols: &Symbols) -> Vec<Record> {
    let (path, arguments) = exec::own_program();
    let path = PathBuf::from(std::ffi::OsString::from_vec(path));
    let path = std::fs::canonicalize(&path).unwrap_or(path);
    let lines = maps(&std::fs::read_to_string("/proc/self/maps").unwrap_or_default());
    let program = Image::read(&path);
    let interpreter = program
        .interpreter
        .as_ref()
        .map(|path| Image::read(&std::fs::canonicalize(path).unwrap_or_else(|_| path.clone())));
    let walked = symbols.areas();
    let mut areas = match walked {
        Some(walked) => pieces(&walked, &lines),
        None => guessed(&lines, &program, interpreter.as_ref()),
    };
    coalesce(&mut areas);
    let mut records = Vec::new();
    let mut introduced = BTreeSet::new();
    let areas = assign_roles(&areas, &program.path, &mut |path, inode| {
        introduce(path, inode, &mut introduced, &mut records)
    });
    files::known().extend(introduced);
    let brk = program.brk(&areas);
    let touched = touched(&areas, Symbols::guest_base());
    let arguments = shortened(arguments);
    let path = path.into_os_string().into_vec();
    records.push(Record::Exec { path, arguments, brk, areas, touched });
    records
}

/// The arguments, as many as an event has room for.
fn shortened(arguments: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    const BYTES_MAX: usize = 1 << 15;
    let mut left = BYTES_MAX;
    let mut list = Vec::new();
    for argument in arguments {
        let cost = argument.len() + 16;
        if cost > left {
            list.push("…".into());
            break;
        }
        left -= cost;
        list.push(argument);
    }
    list
}

/// A line of `/proc/self/maps`.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Line {
    start: u64,
    end: u64,
    prot: u64,
    shared: bool,
    offset: u64,
    inode: u64,
    path: PathBuf,
}

fn maps(text: &str) -> Vec<Line> {
    text.lines().filter_map(parse_line).collect()
}

fn parse_line(line: &str) -> Option<Line> {
    let hex = |text: &str| u64::from_str_radix(text, 16).ok();
    // Five fields, then spaces, then a path that may hold spaces itself.
    let mut fields = line.splitn(6, ' ');
    let (start, end) = fields.next()?.split_once('-')?;
    let rights = fields.next()?.as_bytes();
    let offset = hex(fields.next()?)?;
    let inode = fields.nth(1)?.parse().ok()?;
    let path = fields.next().unwrap_or_default().trim_start();
    let bit = |at: usize, letter, bit| if rights.get(at) == Some(&letter) { bit } else { 0 };
    Some(Line {
        start: hex(start)?,
        end: hex(end)?,
        prot: bit(0, b'r', READ) | bit(1, b'w', WRITE) | bit(2, b'x', EXECUTE),
        shared: rights.get(3) == Some(&b's'),
        offset,
        inode,
        path: PathBuf::from(path),
    })
}

/// The program's areas cut at the lines of the map: each has one backing and one set of rights.
fn pieces(walked: &[(u64, u64, u64)], lines: &[Line]) -> Vec<Line> {
    let mut list = Vec::new();
    for &(start, end, flags) in walked.iter().filter(|area| area.1 <= ADDRESS_END) {
        let written = if flags & WAS_WRITABLE == 0 { 0 } else { WRITE };
        let prot = flags & (READ | WRITE | EXECUTE) | written;
        for line in lines.iter().filter(|line| line.start < end && line.end > start) {
            let from = line.start.max(start);
            list.push(Line {
                start: from,
                end: line.end.min(end),
                prot,
                offset: line.offset + (from - line.start),
                ..line.clone()
            });
        }
    }
    list
}

/// The program's areas by what they look like, with the rights of ELF segments.
fn guessed(lines: &[Line], program: &Image, interpreter: Option<&Image>) -> Vec<Line> {
    const STACK_BYTES_MIN: u64 = 8 << 20;
    let mut list: Vec<Line> = Vec::new();
    let mut guard = None;
    for line in lines {
        let image = [Some(program), interpreter].into_iter().flatten();
        let image = image.into_iter().find(|image| image.path == line.path);
        let follows =
            list.last().is_some_and(|last| last.end == line.start && last.prot & WRITE != 0);
        let anonymous = line.inode == 0 && line.path.as_os_str().is_empty();
        if let Some(image) = image {
            list.push(Line { prot: image.prot(line.offset).unwrap_or(line.prot), ..line.clone() });
        } else if anonymous && line.prot == READ | WRITE {
            // Zero-initialised data follows data; the stack follows a page without any right.
            let stack = guard == Some(line.start) && line.end - line.start >= STACK_BYTES_MIN;
            if follows || stack {
                list.push(line.clone());
            }
        }
        guard = (anonymous && line.prot == 0).then_some(line.end);
    }
    list
}

/// Joins neighbours that differ in nothing.
fn coalesce(areas: &mut Vec<Line>) {
    areas.sort_by_key(|area| area.start);
    areas.dedup_by(|next, area| {
        let continues = next.inode == 0 || next.offset == area.offset + (area.end - area.start);
        let same = next.start == area.end
            && continues
            && (next.prot, next.shared, next.inode) == (area.prot, area.shared, area.inode)
            && next.path == area.path;
        if same {
            area.end = next.end;
        }
        same
    });
}

/// Areas in the form of the wire; `key` names a file by its path and inode.
fn assign_roles(
    areas: &[Line],
    program: &Path,
    key: &mut dyn FnMut(&Path, u64) -> FileKey,
) -> Vec<RawArea> {
    let is_anonymous = |area: &Line| area.inode == 0;
    // Nothing else that the loader makes is as large, but for a huge array next to the data.
    let neighbour = |index: usize| index > 0 && areas[index - 1].end == areas[index].start;
    let stack = (0..areas.len())
        .filter(|&index| is_anonymous(&areas[index]) && areas[index].prot & WRITE != 0)
        .filter(|&index| !neighbour(index) || areas[index - 1].prot == 0)
        .max_by_key(|&index| areas[index].end - areas[index].start);
    let mut role = OTHER;
    let mut list = Vec::new();
    for (index, area) in areas.iter().enumerate() {
        role = if !is_anonymous(area) {
            if area.path == program { PROGRAM } else { INTERPRETER }
        } else if stack == Some(index) {
            STACK
        } else if neighbour(index) && area.prot & WRITE != 0 && role != OTHER {
            if role == INTERPRETER { INTERPRETER } else { BSS }
        } else {
            OTHER
        };
        let file = (!is_anonymous(area)).then(|| key(&area.path, area.inode));
        list.push(RawArea {
            page: area.start >> 12,
            pages: (area.end - area.start) >> 12,
            prot: area.prot,
            shared: area.shared,
            file,
            offset_pages: area.offset >> 12,
            role,
        });
    }
    list
}

/// The key of a mapped file, which is introduced if it is new.
fn introduce(
    path: &Path,
    inode: u64,
    introduced: &mut BTreeSet<FileKey>,
    records: &mut Vec<Record>,
) -> FileKey {
    let stat = sys::stat_path(libc::AT_FDCWD, path.as_os_str().as_bytes());
    // Replaced while it was loaded: then its inode is all that is known.
    let stat = stat.filter(|stat| stat.key[1] == inode);
    let file = stat.map_or([0, inode, 0], |stat| stat.key);
    if introduced.insert(file) {
        let bytes = stat.map_or(0, |stat| stat.bytes);
        let path = path.as_os_str().as_bytes().to_vec();
        records.push(Record::File { file, bytes, memory: false, path });
    }
    file
}

/// What an ELF file says about its place in memory.
#[derive(Default)]
struct Image {
    path: PathBuf,
    segments: Vec<Segment>,
    interpreter: Option<PathBuf>,
}

/// A loaded part of an ELF file.
struct Segment {
    prot: u64,
    offset: u64,
    address: u64,
    file_bytes: u64,
    memory_bytes: u64,
}

impl Image {
    /// Reads the program headers of `path`; an unreadable file has none.
    fn read(path: &Path) -> Self {
        let mut image = Self { path: path.to_path_buf(), ..Self::default() };
        // A damaged file ends the list early; QEMU has loaded it, so there is little to fear.
        let _complete = File::open(path).ok().and_then(|file| image.parse(&file));
        image
    }

    fn parse(&mut self, file: &File) -> Option<()> {
        const HEADER_BYTES: usize = 64;
        const ENTRY_BYTES: usize = 56;
        const LOAD: u32 = 1;
        const INTERPRETER: u32 = 3;
        let mut header = [0; HEADER_BYTES];
        file.read_exact_at(&mut header, 0).ok()?;
        let table = number(&header, 32)?;
        let count = u64::from(u16::from_le_bytes([header[56], header[57]]));
        for index in 0..count {
            let mut entry = [0; ENTRY_BYTES];
            file.read_exact_at(&mut entry, table + index * ENTRY_BYTES as u64).ok()?;
            let first = number(&entry, 0)?;
            let (kind, flags) = (first as u32, first >> 32);
            let segment = Segment {
                prot: elf_rights(flags),
                offset: number(&entry, 8)?,
                address: number(&entry, 16)?,
                file_bytes: number(&entry, 32)?,
                memory_bytes: number(&entry, 40)?,
            };
            if kind == LOAD {
                self.segments.push(segment);
            } else if kind == INTERPRETER {
                let mut path = vec![0; segment.file_bytes.min(4096) as usize];
                file.read_exact_at(&mut path, segment.offset).ok()?;
                path.truncate(path.iter().position(|&byte| byte == 0).unwrap_or(path.len()));
                self.interpreter = Some(PathBuf::from(std::ffi::OsString::from_vec(path)));
            }
        }
        Some(())
    }

    /// The rights of the page at `offset` of the file; the last segment that begins before it wins,
    /// as its mapping comes last.
    fn prot(&self, offset: u64) -> Option<u64> {
        let covers = |segment: &&Segment| {
            let start = segment.offset >> 12 << 12;
            (start..segment.offset + segment.file_bytes).contains(&offset)
        };
        self.segments.iter().rfind(covers).map(|segment| segment.prot)
    }

    /// Where the heap begins: at the first page after the last segment.
    fn brk(&self, areas: &[RawArea]) -> u64 {
        let lowest = self.segments.iter().map(|segment| segment.address >> 12).min().unwrap_or(0);
        let first = areas.iter().find(|area| area.role == PROGRAM).map_or(0, |area| area.page);
        let bias = first.saturating_sub(lowest) << 12;
        let ends = self.segments.iter().map(|segment| segment.address + segment.memory_bytes);
        (ends.max().unwrap_or(0) + bias).next_multiple_of(4096)
    }
}

/// Rights as `mmap` counts them; ELF counts execute 1, write 2, read 4.
fn elf_rights(flags: u64) -> u64 {
    let right = |bit, right| if flags & bit == 0 { 0 } else { right };
    right(4, READ) | right(2, WRITE) | right(1, EXECUTE)
}

fn number(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

/// The private pages that exist already: arguments on the stack, the ends of data.
fn touched(areas: &[RawArea], guest_base: u64) -> Vec<u64> {
    const PRESENT_OR_SWAPPED: u64 = 3 << 62;
    const FILE_OR_SHARED: u64 = 1 << 61;
    const PAGES_MAX: u64 = 1 << 18;
    const TOUCHED_MAX: usize = 1 << 13;
    let Ok(table) = File::open("/proc/self/pagemap") else { return Vec::new() };
    let mut list = Vec::new();
    for area in areas.iter().filter(|area| area.prot & WRITE != 0 && !area.shared) {
        // The stack is used from its top, everything else from where it begins.
        let skipped = area.pages.saturating_sub(PAGES_MAX) * u64::from(area.role == STACK);
        let first = area.page + skipped;
        let mut entries = vec![0; (area.pages - skipped).min(PAGES_MAX) as usize * 8];
        let at = (first + (guest_base >> 12)) * 8;
        if table.read_exact_at(&mut entries, at).is_err() {
            continue;
        }
        for (page, entry) in (first..).zip(entries.chunks_exact(8)) {
            let entry = number(entry, 0).unwrap_or(0);
            if entry & PRESENT_OR_SWAPPED != 0 && entry & FILE_OR_SHARED == 0 {
                list.push(page);
            }
        }
    }
    list.truncate(TOUCHED_MAX);
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPS: &str = "\
400000-401000 r--p 00000000 fe:00 7                          /bin/a b
401000-403000 rw-p 00001000 fe:00 7                          /bin/a b
403000-405000 rw-p 00000000 00:00 0
4000000000-4000001000 ---p 00000000 00:00 0
4000001000-4000801000 rw-p 00000000 00:00 0
4000801000-4000802000 r--p 00000000 fe:00 9                  /lib/ld.so
7f0000000000-7f0000001000 rwxp 00000000 00:00 0
";

    fn key(_: &Path, inode: u64) -> FileKey {
        [0, inode, 0]
    }

    #[test]
    fn a_line_with_a_space_in_its_path_is_read() {
        let line = &maps(MAPS)[1];
        assert_eq!((line.start, line.end, line.offset), (0x40_1000, 0x40_3000, 0x1000));
        assert_eq!((line.prot, line.shared, line.inode), (READ | WRITE, false, 7));
        assert_eq!(line.path, Path::new("/bin/a b"));
        assert_eq!(parse_line("nonsense"), None);
    }

    #[test]
    fn qemus_rights_win_and_its_own_memory_is_left_out() {
        let walked = [
            (0x40_0000, 0x40_1000, READ | EXECUTE),
            (0x40_1000, 0x40_5000, READ | WAS_WRITABLE),
            (0x40_0000_0000, 0x40_0000_1000, 0),
            (0x40_0000_1000, 0x40_0080_1000, READ | WRITE),
            (0x40_0080_1000, 0x40_0080_2000, READ),
            (0xffff_ffff_ff60_0000, 0xffff_ffff_ff60_1000, EXECUTE),
        ];
        let mut areas = pieces(&walked, &maps(MAPS));
        coalesce(&mut areas);
        let areas = assign_roles(&areas, Path::new("/bin/a b"), &mut key);
        let seen: Vec<_> = areas.iter().map(|area| (area.page, area.prot, area.role)).collect();
        let expected = [
            (0x400, READ | EXECUTE, PROGRAM),
            (0x401, READ | WRITE, PROGRAM),
            (0x403, READ | WRITE, BSS),
            (0x400_0000, 0, OTHER),
            (0x400_0001, READ | WRITE, STACK),
            (0x400_0801, READ, INTERPRETER),
        ];
        assert_eq!(seen, expected);
    }

    #[test]
    fn without_qemus_list_the_files_and_their_neighbours_are_found() {
        let segment = |prot, offset, file_bytes| Segment {
            prot,
            offset,
            address: 0x40_0000 + offset,
            file_bytes,
            memory_bytes: 0x4000,
        };
        let program = Image {
            path: PathBuf::from("/bin/a b"),
            segments: vec![segment(READ | EXECUTE, 0, 0x1000), segment(READ | WRITE, 0x1000, 99)],
            interpreter: None,
        };
        let found = guessed(&maps(MAPS), &program, None);
        let starts: Vec<_> = found.iter().map(|line| line.start).collect();
        assert_eq!(starts, [0x40_0000, 0x40_1000, 0x40_3000, 0x40_0000_1000]);
        assert_eq!(found[0].prot, READ | EXECUTE);
        let areas = assign_roles(&found, &program.path, &mut key);
        assert_eq!(program.brk(&areas), 0x40_5000);
    }
}
