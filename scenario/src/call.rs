//! The statements of a process.

use vellum_mm::addr::Pages;
use vellum_mm::machine::Access;
use vellum_mm::spaces::advise::Advise;
use vellum_mm::spaces::map::Place;
use vellum_mm::spaces::remap::Move;
use vellum_mm::spaces::vma::{Advice, Rights, Sharing, VmaFlags};

use crate::parse::{FILE_PAGES_MAX, Reading};
use crate::script::{Call, MapCall};
use crate::words::{self, Parsed, Words, Wrong};

/// Reads what a process does.
pub(crate) fn parse(reading: &mut Reading, words: &mut Words<'_>) -> Parsed<Call> {
    Ok(match words.word("what the process does")? {
        "mmap" => Call::Map(map(reading, words)?),
        "munmap" => Call::Unmap(words.pages()?),
        "mremap" => remap(words)?,
        "mprotect" => Call::Protect(words.pages()?, rights(words)?),
        "brk" => Call::Brk(words.address()?),
        "madvise" => Call::Advise(words.pages()?, advice(words)?),
        "mlock" => Call::Lock(words.pages()?),
        "munlock" => Call::Unlock(words.pages()?),
        "read" => access(words, Access::Read)?,
        "write" => access(words, Access::Write)?,
        "exec" if words.is_empty() => Call::Exec,
        "exec" => access(words, Access::Execute)?,
        "fork" => Call::Fork(reading.new_process(words.word("the child's name")?)?),
        "vfork" => Call::Vfork(reading.new_process(words.word("the child's name")?)?),
        "exit" => Call::Exit,
        other => return Err(Wrong::new("what the process does", other)),
    })
}

fn map(reading: &Reading, words: &mut Words<'_>) -> Parsed<MapCall> {
    let start = words.word("an address or `any`")?;
    let start = if start == "any" { None } else { Some(words::page(start)?) };
    let pages = words.count()?;
    let rights = rights(words)?;
    let sharing = match words.word("`private` or `shared`")? {
        "private" => Sharing::Private,
        "shared" => Sharing::Shared,
        other => return Err(Wrong::new("`private` or `shared`", other)),
    };
    let mut call = MapCall {
        place: start.map_or(Place::Anywhere, Place::FixedFree),
        pages,
        rights,
        sharing,
        file: None,
        flags: VmaFlags::empty(),
    };
    while let Some(word) = words.maybe() {
        match (word, start) {
            ("file", _) => {
                let file = reading.file(words)?;
                call.file = Some((file, words.number("a page of the file", 0..=FILE_PAGES_MAX)?));
            }
            ("growsdown", _) => call.flags |= VmaFlags::GROWS_DOWN,
            ("noreserve", _) => call.flags |= VmaFlags::NO_RESERVE,
            ("locked", _) => call.flags |= VmaFlags::LOCKED,
            ("fixed", Some(start)) => call.place = Place::Fixed(start),
            _ => {
                let flags = "`file`, `growsdown`, `noreserve`, `locked` or, at an address, `fixed`";
                return Err(Wrong::new(flags, word));
            }
        }
    }
    Ok(call)
}

fn remap(words: &mut Words<'_>) -> Parsed<Call> {
    let old = words.pages()?;
    let count = words.count()?;
    let place = match words.maybe() {
        None => Move::Never,
        Some("maymove") => Move::May,
        Some("to") => Move::To(words.page()?),
        Some(other) => return Err(Wrong::new("`maymove` or `to` and an address", other)),
    };
    Ok(Call::Remap { old, count, place })
}

fn access(words: &mut Words<'_>, access: Access) -> Parsed<Call> {
    let start = words.page()?;
    let count = if words.is_empty() { 1 } else { words.count()? };
    Ok(Call::Access(Pages::at(start, count), access))
}

fn rights(words: &mut Words<'_>) -> Parsed<Rights> {
    let what = "rights (`none`, or some of `r`, `w`, `x` in this order)";
    let word = words.word(what)?;
    if word == "none" {
        return Ok(Rights::empty());
    }
    let mut rights = Rights::empty();
    let mut rest = word;
    for (letter, right) in [('r', Rights::READ), ('w', Rights::WRITE), ('x', Rights::EXECUTE)] {
        if let Some(after) = rest.strip_prefix(letter) {
            (rights, rest) = (rights | right, after);
        }
    }
    if rest.is_empty() { Ok(rights) } else { Err(Wrong::new(what, word)) }
}

fn advice(words: &mut Words<'_>) -> Parsed<Option<Advise>> {
    let what = "`normal`, `random`, `sequential`, `willneed`, `dontneed`, `free`, `cold`, \
                `pageout`, `remove`, `dontfork` or `wipeonfork`";
    Ok(Some(match words.word(what)? {
        "normal" => Advise::Use(Advice::Normal),
        "random" => Advise::Use(Advice::Random),
        "sequential" => Advise::Use(Advice::Sequential),
        "willneed" => Advise::WillNeed,
        "dontneed" => Advise::DontNeed,
        "free" => Advise::Free,
        "cold" => Advise::Cold,
        "remove" => Advise::Remove,
        "dontfork" => Advise::Set(VmaFlags::DONT_FORK),
        "wipeonfork" => Advise::Set(VmaFlags::WIPE_ON_FORK),
        "pageout" => return Ok(None),
        other => return Err(Wrong::new(what, other)),
    }))
}
