//! The archive that the kernel starts with: a cpio file of the form "newc", as Linux's initramfs
//! is.
//!
//! Each entry is a header of 110 characters (a magic number, then 13 fields of 8 hexadecimal
//! digits), its path with a zero byte, and its contents. Path and contents end at a multiple of 4
//! bytes.
//!
//! ```text
//!     070701 ino mode uid gid links mtime bytes … path-bytes check │ path 0 pad │ contents pad │ 070701 …
//! ```
//!
//! Linux documents the form in `Documentation/driver-api/early-userspace/buffer-format.rst`. The
//! same entries give the same bytes: there are no times in it, and inodes count from 1.

use thiserror::Error;

/// A file that an archive cannot hold: the form has 32 bits for a size.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error("{path} has {bytes} bytes; the archive takes files below 4 GiB")]
pub struct TooLarge {
    /// Its path in the archive.
    pub path: String,
    /// How large it is.
    pub bytes: u64,
}

/// Mode bits of a directory, a file, a symbolic link; stat(2) has them all.
const DIRECTORY: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const LINK: u32 = 0o120_000;

/// An archive that grows entry by entry.
#[derive(Clone, Default, Debug)]
pub struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    /// Adds a directory. What is in it comes after it.
    pub fn directory(&mut self, path: &str) {
        self.entry(path, DIRECTORY | 0o755, &[], 0);
    }

    /// Adds a file.
    pub fn file(&mut self, path: &str, contents: &[u8]) -> Result<(), TooLarge> {
        self.sized_entry(path, FILE | 0o644, contents)
    }

    /// Adds a file that may be executed.
    pub fn program(&mut self, path: &str, contents: &[u8]) -> Result<(), TooLarge> {
        self.sized_entry(path, FILE | 0o755, contents)
    }

    /// Adds a symbolic link to `target`, which is as long as a path can be: at most 4,095 bytes.
    pub fn link(&mut self, path: &str, target: &str) {
        self.entry(path, LINK | 0o777, target.as_bytes(), target.len() as u32);
    }

    /// Ends the archive.
    pub fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[], 0);
        self.bytes
    }

    fn sized_entry(&mut self, path: &str, mode: u32, contents: &[u8]) -> Result<(), TooLarge> {
        let too_large = |_| TooLarge { path: path.to_owned(), bytes: contents.len() as u64 };
        let bytes = u32::try_from(contents.len()).map_err(too_large)?;
        self.entry(path, mode, contents, bytes);
        Ok(())
    }

    fn entry(&mut self, path: &str, mode: u32, contents: &[u8], bytes: u32) {
        self.entries += 1;
        let (inode, links, path_bytes) = (self.entries, 1, path.len() as u32 + 1);
        // After the mode come owner and group, after the links the time; after the bytes the device
        // that the entry is on and the one that it is; at the end a sum that this form does not
        // use.
        let fields = [inode, mode, 0, 0, links, 0, bytes, 0, 0, 0, 0, path_bytes, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(contents);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_a_header_of_digits_a_path_and_contents() {
        let mut archive = Archive::default();
        archive.file("etc/motd", b"hello").unwrap();
        let expected = concat!(
            "070701",
            "00000001", // inode
            "000081a4", // a file, rw-r--r--
            "00000000", // owner
            "00000000", // group
            "00000001", // links
            "00000000", // time
            "00000005", // bytes
            "00000000000000000000000000000000",
            "00000009", // bytes of the path with its zero
            "00000000",
            "etc/motd\0\0",
            "hello\0\0\0",
        );
        let text = String::from_utf8(archive.bytes).unwrap();
        assert_eq!(text, expected);
    }

    #[test]
    fn what_is_not_a_file_has_a_mode_that_says_so_and_the_last_entry_is_the_trailer() {
        let mut archive = Archive::default();
        archive.directory("bin");
        archive.program("bin/a", b"x").unwrap();
        archive.link("bin/b", "a");
        let text = String::from_utf8(archive.finish()).unwrap();
        let modes: Vec<&str> = text.split("070701").skip(1).map(|entry| &entry[8..16]).collect();
        assert_eq!(modes, ["000041ed", "000081ed", "0000a1ff", "00000000"]);
        assert!(text.contains("bin/b\0a\0\0\x00070701"), "a link holds its target");
        assert!(text.ends_with("TRAILER!!!\0\0\0\0"));
        assert_eq!(text.len() % 4, 0);
    }
}
