//! Paths: from names to what they lead to, and back.

use alloc::vec::Vec;

use super::tree::{Kind, NodeId, ROOT, Tree};
use crate::calls::Errno;

/// Symbolic links followed on one path at the most.
const LINKS_MAX: u32 = 40;
/// Bytes of one name at the most.
const NAME_MAX: usize = 255;

impl Tree {
    /// Follows `path` from `from`; a symbolic link at its end only if `follow`.
    ///
    /// # Errors
    /// `ENOENT`, `ENOTDIR`, `ELOOP`, `ENAMETOOLONG`.
    pub(crate) fn find(&self, from: NodeId, path: &[u8], follow: bool) -> Result<NodeId, Errno> {
        if path.is_empty() {
            return Err(Errno::ENOENT);
        }
        self.walk(from, path, follow, &mut 0)
    }

    fn walk(
        &self,
        from: NodeId,
        path: &[u8],
        follow: bool,
        links: &mut u32,
    ) -> Result<NodeId, Errno> {
        let mut at = if path.first() == Some(&b'/') { ROOT } else { from };
        let must_be_directory = path.last() == Some(&b'/');
        let mut names = path.split(|&byte| byte == b'/').filter(|name| !name.is_empty()).peekable();
        while let Some(name) = names.next() {
            let last = names.peek().is_none();
            let next = self.step(at, name)?;
            at = match &self[next].kind {
                Kind::Link(to) if !last || follow || must_be_directory => {
                    *links += 1;
                    if *links > LINKS_MAX {
                        return Err(Errno::ELOOP);
                    }
                    self.walk(at, to, true, links)?
                }
                _ => next,
            };
        }
        if must_be_directory {
            self.names(at)?;
        }
        Ok(at)
    }

    fn step(&self, at: NodeId, name: &[u8]) -> Result<NodeId, Errno> {
        let names = self.names(at)?;
        match name {
            b"." => Ok(at),
            b".." => self.above(at),
            _ if name.len() > NAME_MAX => Err(Errno::ENAMETOOLONG),
            _ => names.get(name).copied().ok_or(Errno::ENOENT),
        }
    }

    /// The directory of a path's last name, and that name.
    ///
    /// # Errors
    /// As [`find`](Self::find); `EEXIST` if the path ends in no name, as `/` and `..` do.
    pub(crate) fn place<'a>(
        &self,
        from: NodeId,
        path: &'a [u8],
    ) -> Result<(NodeId, &'a [u8]), Errno> {
        let end = path.iter().rposition(|&byte| byte != b'/').map_or(0, |last| last + 1);
        let trimmed = &path[..end];
        let start = trimmed.iter().rposition(|&byte| byte == b'/').map_or(0, |slash| slash + 1);
        let (above, name) = trimmed.split_at(start);
        match name {
            b"" if path.is_empty() => Err(Errno::ENOENT),
            b"" | b"." | b".." => Err(Errno::EEXIST),
            _ if name.len() > NAME_MAX => Err(Errno::ENAMETOOLONG),
            _ if above.is_empty() => Ok((from, name)),
            _ => Ok((self.find(from, above, true)?, name)),
        }
    }

    /// Where a new file goes that `path` is to lead to: a symbolic link to nothing says where.
    ///
    /// # Errors
    /// As [`place`](Self::place).
    pub(crate) fn place_to_make(
        &self,
        mut from: NodeId,
        path: &[u8],
    ) -> Result<(NodeId, Vec<u8>), Errno> {
        let mut path = path.to_vec();
        for _ in 0..LINKS_MAX {
            let (above, name) = self.place(from, &path)?;
            let found = self.names(above)?.get(name);
            let Some(Kind::Link(to)) = found.map(|&node| &self[node].kind) else {
                return Ok((above, name.to_vec()));
            };
            (from, path) = (above, to.clone());
        }
        Err(Errno::ELOOP)
    }

    /// The absolute path, without symbolic links, of what `path` leads to.
    ///
    /// # Errors
    /// As [`find`](Self::find).
    pub(crate) fn absolute(&self, from: NodeId, path: &[u8]) -> Result<Vec<u8>, Errno> {
        let (above, name) = self.place_to_make(from, path)?;
        let mut absolute = self.path_of(above)?;
        if above != ROOT {
            absolute.push(b'/');
        }
        absolute.extend(name);
        Ok(absolute)
    }

    /// The absolute path of a directory.
    ///
    /// # Errors
    /// `ENOENT` if it has none any more.
    pub(crate) fn path_of(&self, mut directory: NodeId) -> Result<Vec<u8>, Errno> {
        let mut parts: Vec<&[u8]> = Vec::new();
        while directory != ROOT {
            let above = self.above(directory)?;
            let names = self.names(above)?;
            let own = names.iter().find(|&(_, &node)| node == directory).ok_or(Errno::ENOENT)?;
            parts.push(own.0);
            directory = above;
        }
        if parts.is_empty() {
            return Ok(b"/".to_vec());
        }
        Ok(parts.iter().rev().flat_map(|part| [b"/", *part]).flatten().copied().collect())
    }
}
