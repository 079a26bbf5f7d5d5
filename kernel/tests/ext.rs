//! The kernel's reader of ext2 and ext4, on this machine: images whose files are known, and the same
//! images damaged in every way that is quick to think of.

extern crate alloc;

#[path = "../src/files/ext/mod.rs"]
mod ext;

use ext::{Device, ENTRIES_MAX, Entry, EntryKind, ExtError, File, Part, Run, read_tree};
use rand_pcg::Pcg64Mcg;
use rand_pcg::rand_core::{Rng, SeedableRng};

const EXT2: &[u8] = include_bytes!("data/disk.ext2");
const EXT4: &[u8] = include_bytes!("data/disk.ext4");
/// Where the superblock is.
const SUPERBLOCK: usize = 1024;

/// An image in memory, which can be read so many times.
struct Image {
    bytes: Vec<u8>,
    reads_left: usize,
}

impl Image {
    fn new(bytes: &[u8]) -> Image {
        Image { bytes: bytes.to_vec(), reads_left: usize::MAX }
    }

    fn tree(&mut self) -> Result<Vec<Entry>, ExtError> {
        read_tree(self)
    }

    /// The contents of a file.
    fn contents(&self, file: &File) -> Vec<u8> {
        let mut contents = vec![0; file.bytes as usize];
        let runs = file.runs(0..file.bytes).expect("its map is sound");
        for run in runs {
            let from = run.at as usize;
            let to = run.bytes.start as usize..run.bytes.end as usize;
            let count = to.len();
            contents[to].copy_from_slice(&self.bytes[from..from + count]);
        }
        contents
    }
}

impl Device for Image {
    fn bytes(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read(&mut self, from: u64, to: &mut [u8]) -> Result<(), ExtError> {
        self.reads_left = self.reads_left.checked_sub(1).ok_or(ExtError::Unreadable(from))?;
        let from = from as usize;
        to.copy_from_slice(&self.bytes[from..from + to.len()]);
        Ok(())
    }
}

fn file(tree: &[Entry], name: &str) -> File {
    let entry = tree.iter().find(|entry| entry.name == name.as_bytes());
    match &entry.unwrap_or_else(|| panic!("no {name}")).kind {
        EntryKind::File(file) => (**file).clone(),
        other => panic!("{name} is {other:?}"),
    }
}

#[test]
fn names_lead_to_files_directories_and_links() {
    for image in [EXT2, EXT4] {
        let tree = Image::new(image).tree().expect("it is sound");
        let sub = tree.iter().find(|entry| entry.name == b"sub").expect("it is there");
        let inner = tree.iter().find(|entry| entry.name == b"inner.txt").expect("it is there");
        assert_eq!((sub.above, &sub.kind), (ext::ROOT_INODE, &EntryKind::Directory));
        assert_eq!((inner.above, inner.permissions), (sub.inode, 0o644));
        let link = tree.iter().find(|entry| entry.name == b"link").expect("it is there");
        assert_eq!(link.kind, EntryKind::Link(b"sub/inner.txt".to_vec()));
        let program = tree.iter().find(|entry| entry.name == b"program").expect("it is there");
        assert_eq!(program.permissions, 0o755);
    }
}

#[test]
fn contents_are_found_through_blocks_of_blocks_and_through_extents() {
    let big: Vec<u8> =
        (0..60_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let mut sparse = vec![b'A'; 1024];
    sparse.resize(30 << 10, 0);
    sparse.extend_from_slice(b"the end of a hole\n");
    for bytes in [EXT2, EXT4] {
        let mut image = Image::new(bytes);
        let tree = image.tree().expect("it is sound");
        assert_eq!(image.contents(&file(&tree, "hello.txt")), b"hello from the disk\n");
        assert!(image.contents(&file(&tree, "big")) == big);
        assert!(image.contents(&file(&tree, "sparse")) == sparse);
    }
}

#[test]
fn extents_that_were_never_written_are_zeros() {
    let mut image = Image::new(EXT4);
    // Blocks 91 to 94 are `unwritten`'s.
    image.bytes[91 << 10..95 << 10].fill(b'x');
    let tree = image.tree().expect("it is sound");
    let unwritten = file(&tree, "unwritten");
    assert_eq!(image.contents(&unwritten), vec![0; 4000]);
}

#[test]
fn runs_are_cut_to_what_is_asked() {
    let tree = Image::new(EXT2).tree().expect("it is sound");
    let big = file(&tree, "big");
    let whole: Vec<Run> = big.runs(0..60_000).expect("it is sound").collect();
    let part: Vec<_> = big.runs(512..1536).expect("it is sound").collect();
    assert_eq!(part.len(), 1);
    assert_eq!((part[0].bytes.clone(), part[0].at), (512..1536, whole[0].at + 512));
    let hole: Vec<_> = file(&tree, "sparse").runs(4096..8192).expect("it is sound").collect();
    assert_eq!(hole, []);
}

fn refusal(change: impl FnOnce(&mut [u8])) -> ExtError {
    let mut image = Image::new(EXT2);
    change(&mut image.bytes);
    image.tree().expect_err("it is refused")
}

#[test]
fn what_is_not_understood_is_refused_with_the_reason() {
    let feature =
        |byte: usize, bit: u8| refusal(move |image| image[SUPERBLOCK + 0x60 + byte] |= bit);
    assert_eq!(feature(0, 4), ExtError::NotClean);
    assert_eq!(feature(0, 0x10), ExtError::Features(0x10));
    assert_eq!(feature(2, 1), ExtError::Encrypted);
    assert_eq!(feature(5, 2), ExtError::Clusters);
    assert_eq!(refusal(|image| image[SUPERBLOCK + 0x38] = 0), ExtError::NotExt);
    let larger = refusal(|image| image[SUPERBLOCK + 4] += 1);
    assert_eq!(larger, ExtError::Corrupt(Part::Superblock), "than its disk");
    assert_eq!(Image::new(&EXT2[..2047]).tree(), Err(ExtError::NotExt));
}

#[test]
fn each_read_may_fail() {
    let mut failed = 0;
    for reads_left in 0.. {
        match (Image { reads_left, ..Image::new(EXT2) }).tree() {
            Err(ExtError::Unreadable(_)) => failed += 1,
            other => {
                assert!(other.is_ok(), "{other:?}");
                break;
            }
        }
    }
    assert!(failed > 20, "{failed} reads");
}

/// Reads a damaged image; it may be refused, but what is not has its bytes on the disk and in order.
fn survives(bytes: Vec<u8>) -> bool {
    let mut image = Image { bytes, reads_left: 1 << 20 };
    let Ok(tree) = image.tree() else { return false };
    assert!(tree.len() <= ENTRIES_MAX);
    for entry in tree {
        let EntryKind::File(file) = entry.kind else { continue };
        let mut end = 0;
        for run in file.runs(0..file.bytes).into_iter().flatten() {
            assert!(end <= run.bytes.start && run.bytes.start < run.bytes.end, "{run:?}");
            end = run.bytes.end;
            assert!(run.at + (end - run.bytes.start) <= image.bytes(), "{run:?}");
        }
        assert!(end <= file.bytes);
    }
    true
}

#[test]
fn no_damaged_byte_stops_the_reader() {
    let mut refused = 0;
    for image in [EXT2, EXT4] {
        // All that describes is in front, but for blocks of blocks and a directory.
        for at in (SUPERBLOCK..24 << 10).chain(34 << 10..35 << 10).chain(83 << 10..91 << 10) {
            for change in [0x01, 0x80, 0xff] {
                let mut bytes = image.to_vec();
                bytes[at] ^= change;
                refused += usize::from(!survives(bytes));
            }
        }
    }
    assert!(refused > 1000, "{refused} refused");
}

#[test]
fn chance_finds_no_damage_that_stops_the_reader() {
    for seed in 0..4000 {
        let mut chance = Pcg64Mcg::seed_from_u64(seed);
        let mut bytes = if seed % 2 == 0 { EXT2 } else { EXT4 }.to_vec();
        for _ in 0..=seed % 8 {
            let at = SUPERBLOCK + chance.next_u32() as usize % (90 << 10);
            let word = chance.next_u32().to_le_bytes();
            bytes[at..at + 4].copy_from_slice(&word);
        }
        survives(bytes);
    }
}
