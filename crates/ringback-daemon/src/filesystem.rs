//! Which file systems are not this machine's own, by what the kernel calls them.

use std::path::Path;

/// A file system whose files live elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Remote {
    /// Network File System.
    Nfs,
    /// Windows shares.
    Smb,
    /// A program in user space, such as sshfs.
    Fuse,
    /// Plan 9's protocol, by which virtual machines and WSL reach their host.
    Plan9,
}

impl Remote {
    /// What it is called.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Remote::Nfs => "NFS",
            Remote::Smb => "SMB",
            Remote::Fuse => "FUSE",
            Remote::Plan9 => "9p",
        }
    }

    /// Whether other machines write there as well. Behind FUSE there may be anything.
    pub(crate) fn is_network(self) -> bool {
        self != Remote::Fuse
    }
}

/// The kind of file system a path is on; `None` = one of this machine's own, or the kernel does not tell.
#[cfg(target_os = "linux")]
pub(crate) fn remote(path: &Path) -> Option<Remote> {
    // The width and sign of the number differ between platforms; its lower 32 bits do not.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "only the lower 32 bits count"
    )]
    let magic = nix::sys::statfs::statfs(path).ok()?.filesystem_type().0 as u32;
    match magic {
        0x6969 => Some(Remote::Nfs),
        0x517B | 0xFE53_4D42 | 0xFF53_4D42 => Some(Remote::Smb),
        0x6573_5546 => Some(Remote::Fuse),
        0x0102_1997 => Some(Remote::Plan9),
        _ => None,
    }
}

/// The kind of file system a path is on: not known here.
#[cfg(not(target_os = "linux"))]
pub(crate) fn remote(_path: &Path) -> Option<Remote> {
    None
}
