//! How a [`Call`] becomes bytes: a tag, then its fields in the order of their declaration.
//!
//! Calls are rare, so this coding is plain: numbers in LEB128, signed ones folded by zigzag first,
//! flags one byte, lists and texts after their length, an optional number as itself plus one with 0
//! for none. The tags are part of the format and are never reused.

use crate::bytes::{Cursor, Malformed, put_text, put_varint, unzigzag, zigzag};
use crate::event::{Area, Call, Exit, File, Role};

/// Appends `call`.
pub(crate) fn put(call: &Call, out: &mut Vec<u8>) {
    match call {
        Call::Start { thread, process, pid } => put_numbers(out, 0, &[*thread, *process, *pid]),
        Call::Exec { .. } => put_exec(call, out),
        Call::Fork { thread, process, child, pid, flags } => {
            put_numbers(out, 2, &[*thread, *process, *child, *pid]);
            put_varint(out, *flags);
        }
        Call::Thread { thread, child } => put_numbers(out, 3, &[*thread, *child]),
        Call::ThreadExit { thread } => put_numbers(out, 4, &[*thread]),
        Call::Exit { thread, process, exit } => {
            put_numbers(out, 5, &[*thread, *process]);
            let (how, value) = match *exit {
                Exit::Code(code) => (0, code),
                Exit::Signal(signal) => (1, signal),
                Exit::Unknown => (2, 0),
            };
            out.push(how);
            put_varint(out, zigzag(i64::from(value).cast_unsigned()));
        }
        Call::Reap { thread, process } => put_numbers(out, 6, &[*thread, *process]),
        Call::File(file) => {
            put_numbers(out, 7, &[file.id]);
            put_text(out, &file.path);
            put_varint(out, file.bytes);
            out.push(u8::from(file.memory));
        }
        Call::Map { thread, start, bytes, prot, flags, file, offset } => {
            put_numbers(out, 8, &[*thread, *prot, *flags]);
            put_wide(out, &[*start, *bytes, *offset, file.map_or(0, |file| u64::from(file) + 1)]);
        }
        Call::Remap { thread, start, bytes, new_start, new_bytes, flags } => {
            put_numbers(out, 10, &[*thread, *flags]);
            put_wide(out, &[*start, *bytes, *new_start, *new_bytes]);
        }
        Call::Failed { thread, call, errno } => {
            put_numbers(out, 24, &[*thread, *call]);
            put_varint(out, zigzag(i64::from(*errno).cast_unsigned()));
        }
        Call::Mark { thread, text } => {
            put_numbers(out, 26, &[*thread]);
            put_text(out, text);
        }
        _ => put_plain(call, out),
    }
}

/// Appends one of the calls that are a thread and a few wide numbers.
fn put_plain(call: &Call, out: &mut Vec<u8>) {
    let (tag, thread, fields): (u8, _, [u64; 3]) = match *call {
        Call::Unmap { thread, start, bytes } => (9, thread, [start, bytes, 0]),
        Call::Protect { thread, start, bytes, prot } => (11, thread, [start, bytes, prot.into()]),
        Call::Brk { thread, end } => (12, thread, [end, 0, 0]),
        Call::Advise { thread, start, bytes, advice } => {
            (13, thread, [start, bytes, advice.into()])
        }
        Call::Lock { thread, start, bytes, all } => (14, thread, [start, bytes, all.into()]),
        Call::Unlock { thread, start, bytes, all } => (15, thread, [start, bytes, all.into()]),
        Call::Sync { thread, start, bytes, flags } => (16, thread, [start, bytes, flags.into()]),
        Call::Touch { thread, page, pages, write } => (17, thread, [page, pages, write.into()]),
        Call::Read { thread, file, offset, bytes } => (18, thread, [file.into(), offset, bytes]),
        Call::Write { thread, file, offset, bytes } => (19, thread, [file.into(), offset, bytes]),
        Call::FileSync { thread, file } => (20, thread, [file.into(), 0, 0]),
        Call::Truncate { thread, file, bytes } => (21, thread, [file.into(), bytes, 0]),
        Call::Unlink { thread, file } => (22, thread, [file.into(), 0, 0]),
        Call::Tick { thread, count, instructions } => (25, thread, [count, instructions, 0]),
        // The others are written by `put`.
        _ => unreachable!("{call:?} is not a plain call"),
    };
    put_numbers(out, tag, &[thread]);
    put_wide(out, &fields[..plain_fields(tag)]);
}

/// Wide numbers of a plain call.
fn plain_fields(tag: u8) -> usize {
    match tag {
        12 | 20 | 22 => 1,
        9 | 21 | 25 => 2,
        _ => 3,
    }
}

fn put_numbers(out: &mut Vec<u8>, tag: u8, numbers: &[u32]) {
    out.push(tag);
    for number in numbers {
        put_varint(out, u64::from(*number));
    }
}

fn put_wide(out: &mut Vec<u8>, numbers: &[u64]) {
    for number in numbers {
        put_varint(out, *number);
    }
}

fn put_exec(call: &Call, out: &mut Vec<u8>) {
    let Call::Exec { thread, process, path, arguments, brk, areas, touched } = call else {
        unreachable!("{call:?} is not an exec");
    };
    put_numbers(out, 1, &[*thread, *process]);
    put_text(out, path);
    put_varint(out, arguments.len() as u64);
    for argument in arguments {
        put_text(out, argument);
    }
    put_varint(out, *brk);
    put_varint(out, areas.len() as u64);
    for area in areas {
        put_wide(out, &[area.page, area.pages, u64::from(area.prot)]);
        out.push(u8::from(area.shared));
        out.push(area.role as u8);
        let (file, offset) = area.file.map_or((0, 0), |(file, at)| (u64::from(file) + 1, at));
        put_wide(out, &[file, offset]);
    }
    put_varint(out, touched.len() as u64);
    put_wide(out, touched);
}

/// Reads one call.
pub(crate) fn get(from: &mut Cursor<'_>) -> Result<Call, Malformed> {
    let tag = from.byte()?;
    Ok(match tag {
        7 => Call::File(File {
            id: from.varint32()?,
            path: from.text()?,
            bytes: from.varint()?,
            memory: flag(from)?,
        }),
        0..=26 => {
            let thread = from.varint32()?;
            match tag {
                1 => get_exec(from, thread)?,
                0 | 2..=8 | 10 | 24 | 26 => get_special(from, tag, thread)?,
                23 => return Err(Malformed("an unknown kind of call")),
                _ => get_plain(from, tag, thread)?,
            }
        }
        _ => return Err(Malformed("an unknown kind of call")),
    })
}

fn get_special(from: &mut Cursor<'_>, tag: u8, thread: u32) -> Result<Call, Malformed> {
    Ok(match tag {
        0 => Call::Start { thread, process: from.varint32()?, pid: from.varint32()? },
        2 => Call::Fork {
            thread,
            process: from.varint32()?,
            child: from.varint32()?,
            pid: from.varint32()?,
            flags: from.varint()?,
        },
        3 => Call::Thread { thread, child: from.varint32()? },
        4 => Call::ThreadExit { thread },
        5 => Call::Exit { thread, process: from.varint32()?, exit: get_exit(from)? },
        6 => Call::Reap { thread, process: from.varint32()? },
        8 => {
            let (prot, flags) = (from.varint32()?, from.varint32()?);
            let (start, bytes, offset) = (from.varint()?, from.varint()?, from.varint()?);
            Call::Map { thread, start, bytes, prot, flags, file: optional(from)?, offset }
        }
        10 => {
            let flags = from.varint32()?;
            let (start, bytes) = (from.varint()?, from.varint()?);
            let (new_start, new_bytes) = (from.varint()?, from.varint()?);
            Call::Remap { thread, start, bytes, new_start, new_bytes, flags }
        }
        24 => Call::Failed { thread, call: from.varint32()?, errno: signed(from)? },
        _ => Call::Mark { thread, text: from.text()? },
    })
}

fn get_plain(from: &mut Cursor<'_>, tag: u8, thread: u32) -> Result<Call, Malformed> {
    let mut fields = [0; 3];
    for field in &mut fields[..plain_fields(tag)] {
        *field = from.varint()?;
    }
    let [a, b, c] = fields;
    let narrow =
        |field: u64| u32::try_from(field).map_err(|_| Malformed("a number has more than 32 bits"));
    let truth = |field: u64| match field {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Malformed("a flag is neither 0 nor 1")),
    };
    Ok(match tag {
        9 => Call::Unmap { thread, start: a, bytes: b },
        11 => Call::Protect { thread, start: a, bytes: b, prot: narrow(c)? },
        12 => Call::Brk { thread, end: a },
        13 => Call::Advise { thread, start: a, bytes: b, advice: narrow(c)? },
        14 => Call::Lock { thread, start: a, bytes: b, all: truth(c)? },
        15 => Call::Unlock { thread, start: a, bytes: b, all: truth(c)? },
        16 => Call::Sync { thread, start: a, bytes: b, flags: narrow(c)? },
        17 => Call::Touch { thread, page: a, pages: b, write: truth(c)? },
        18 => Call::Read { thread, file: narrow(a)?, offset: b, bytes: c },
        19 => Call::Write { thread, file: narrow(a)?, offset: b, bytes: c },
        20 => Call::FileSync { thread, file: narrow(a)? },
        21 => Call::Truncate { thread, file: narrow(a)?, bytes: b },
        22 => Call::Unlink { thread, file: narrow(a)? },
        25 => Call::Tick { thread, count: a, instructions: b },
        _ => return Err(Malformed("an unknown kind of call")),
    })
}

fn get_exec(from: &mut Cursor<'_>, thread: u32) -> Result<Call, Malformed> {
    let (process, path) = (from.varint32()?, from.text()?);
    let count = from.count(1)?;
    let arguments = (0..count).map(|_| from.text()).collect::<Result<_, _>>()?;
    let brk = from.varint()?;
    let count = from.count(7)?;
    let areas = (0..count).map(|_| get_area(from)).collect::<Result<_, _>>()?;
    let count = from.count(1)?;
    let touched = (0..count).map(|_| from.varint()).collect::<Result<_, _>>()?;
    Ok(Call::Exec { thread, process, path, arguments, brk, areas, touched })
}

fn get_area(from: &mut Cursor<'_>) -> Result<Area, Malformed> {
    let (page, pages, prot) = (from.varint()?, from.varint()?, from.varint32()?);
    let shared = flag(from)?;
    let role = match from.byte()? {
        0 => Role::Program,
        1 => Role::Bss,
        2 => Role::Interpreter,
        3 => Role::Stack,
        4 => Role::Other,
        _ => return Err(Malformed("an unknown role of an area")),
    };
    let file = optional(from)?;
    let offset = from.varint()?;
    if file.is_none() && offset != 0 {
        return Err(Malformed("an area has an offset but no file"));
    }
    Ok(Area { page, pages, prot, shared, file: file.map(|file| (file, offset)), role })
}

fn get_exit(from: &mut Cursor<'_>) -> Result<Exit, Malformed> {
    let how = from.byte()?;
    let value = signed(from)?;
    match how {
        0 => Ok(Exit::Code(value)),
        1 => Ok(Exit::Signal(value)),
        2 if value == 0 => Ok(Exit::Unknown),
        _ => Err(Malformed("an unknown way to exit")),
    }
}

fn flag(from: &mut Cursor<'_>) -> Result<bool, Malformed> {
    match from.byte()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Malformed("a flag is neither 0 nor 1")),
    }
}

fn signed(from: &mut Cursor<'_>) -> Result<i32, Malformed> {
    i32::try_from(unzigzag(from.varint()?).cast_signed())
        .map_err(|_| Malformed("a number has more than 32 bits"))
}

fn optional(from: &mut Cursor<'_>) -> Result<Option<u32>, Malformed> {
    match from.varint()?.checked_sub(1) {
        None => Ok(None),
        Some(number) => {
            let number = u32::try_from(number);
            Ok(Some(number.map_err(|_| Malformed("a number has more than 32 bits"))?))
        }
    }
}
