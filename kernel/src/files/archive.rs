//! The archive that the boot loader leaves in memory: cpio in its "newc" form, as Linux's initramfs
//! (`Documentation/driver-api/early-userspace/buffer-format.rst`).

use alloc::format;
use alloc::string::{String, ToString};

use linux_raw_sys::general::{S_IFDIR, S_IFLNK, S_IFMT, S_IFREG};

use super::Stored;
use super::tree::{Device, Kind, NodeId, ROOT, Tree};
use crate::calls::Errno;

const HEADER_BYTES: usize = 110;
const MAGIC: &[u8] = b"070701";

/// One member.
struct Member<'a> {
    name: &'a [u8],
    mode: u32,
    /// Where its contents are in the archive.
    start: usize,
    bytes: usize,
    /// Where the next one begins.
    next: usize,
}

/// The tree of the archive's files, with the usual devices in `/dev`. Without an archive those alone.
///
/// # Errors
/// What is wrong with it, and at which offset.
pub(crate) fn unpack(archive: &[u8]) -> Result<Tree, String> {
    let mut tree = Tree::default();
    let mut at = 0;
    while at < archive.len() {
        let Some(member) = member(archive, at)? else { break };
        add(&mut tree, archive, &member)
            .map_err(|errno| format!("archive at byte {at}: errno {}", errno.0))?;
        at = member.next;
    }
    let refused = |errno: Errno| format!("no /dev, /tmp or /proc: errno {}", errno.0);
    let devices = directory(&mut tree, b"dev").map_err(refused)?;
    let names: [(&[u8], Device); 7] = [
        (b"null", Device::Null),
        (b"zero", Device::Zero),
        (b"full", Device::Full),
        (b"random", Device::Random),
        (b"urandom", Device::Random),
        (b"console", Device::Console),
        (b"tty", Device::Console),
    ];
    for (name, device) in names {
        tree.add(devices, name, Kind::Device(device), 0o666).map_err(refused)?;
    }
    add_descriptors(&mut tree, devices).map_err(refused)?;
    tree.add_directory(devices, b"shm", 0o777).map_err(refused)?;
    directory(&mut tree, b"tmp").map_err(refused)?;
    let own = directory(&mut tree, b"proc/self").map_err(refused)?;
    tree.add_own_program(own).map_err(refused)?;
    Ok(tree)
}

/// What leads to a process's own open files. Only the first ten have names: those that a shell's
/// redirections can name.
fn add_descriptors(tree: &mut Tree, devices: NodeId) -> Result<(), Errno> {
    let directory = tree.add_directory(devices, b"fd", 0o555)?;
    for number in 0..10 {
        let kind = Kind::Device(Device::Descriptor(number));
        tree.add(directory, &[b'0' + number], kind, 0o666)?;
    }
    for (name, to) in [("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")] {
        tree.add(devices, name.as_bytes(), Kind::Link(to.into()), 0o777)?;
    }
    Ok(())
}

/// The member at `at`; `None` at the trailer.
fn member(archive: &[u8], at: usize) -> Result<Option<Member<'_>>, String> {
    let bad = |what: &str| format!("archive at byte {at}: {what}");
    let header = archive.get(at..at + HEADER_BYTES).ok_or_else(|| bad("cut in a header"))?;
    if &header[..6] != MAGIC {
        return Err(bad("no cpio header of the newc form"));
    }
    let field = |index: usize| {
        let digits = &header[6 + 8 * index..14 + 8 * index];
        let digits = core::str::from_utf8(digits).map_err(|error| bad(&error.to_string()))?;
        u32::from_str_radix(digits, 16).map_err(|error| bad(&error.to_string()))
    };
    let (mode, bytes, name_bytes) = (field(1)?, field(6)? as usize, field(11)? as usize);
    let name_start = at + HEADER_BYTES;
    let name = archive.get(name_start..name_start + name_bytes);
    let name = name.and_then(|name| name.strip_suffix(b"\0")).ok_or_else(|| bad("a bad name"))?;
    let start = (name_start + name_bytes).next_multiple_of(4);
    if archive.len() < start + bytes {
        return Err(bad("cut in a file"));
    }
    if name == b"TRAILER!!!" {
        return Ok(None);
    }
    Ok(Some(Member { name, mode, start, bytes, next: (start + bytes).next_multiple_of(4) }))
}

fn add(tree: &mut Tree, archive: &[u8], member: &Member<'_>) -> Result<(), Errno> {
    let end = member.name.iter().rposition(|&byte| byte == b'/');
    let (above, name) = match end {
        Some(slash) => (directory(tree, &member.name[..slash])?, &member.name[slash + 1..]),
        None => (ROOT, member.name),
    };
    let permissions = member.mode & 0o7777;
    let kind = match member.mode & S_IFMT {
        S_IFDIR => {
            let directory = directory(tree, member.name)?;
            tree[directory].permissions = permissions;
            return Ok(());
        }
        S_IFREG => Kind::Stored(Stored::Archive(member.start..member.start + member.bytes)),
        S_IFLNK => Kind::Link(archive[member.start..member.start + member.bytes].to_vec()),
        _ => return Ok(()), // devices are this kernel's own
    };
    tree.add(above, name, kind, permissions).map(|_| ())
}

/// The directory of this path, made with all above it as far as they are missing.
pub(super) fn directory(tree: &mut Tree, path: &[u8]) -> Result<NodeId, Errno> {
    let mut at = ROOT;
    for name in path.split(|&byte| byte == b'/') {
        if name.is_empty() || name == b"." {
            continue;
        }
        at = match tree.names(at)?.get(name) {
            Some(&next) => next,
            None => tree.add_directory(at, name, 0o755)?,
        };
    }
    Ok(at)
}
