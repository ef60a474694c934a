//! Which file system a path is on, and whether several hosts may write there.

use std::path::Path;

/// A file system, as the kernel reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FileSystem {
    /// `f_type` of statfs(2).
    pub(super) magic: u32,
    /// The mount's type, such as `fuse.sshfs`; only where the number is not enough.
    pub(super) mount: Option<String>,
}

/// Network and cluster file systems, by their numbers in statfs(2) and the kernel's `magic.h`.
///
/// 9P and virtiofs are not among them, nor is overlay: they show a container or a virtual machine the disk of the host
/// below it.
const NETWORK: [(u32, &str); 16] = [
    (0x0000_6969, "NFS"),
    (0x0000_517b, "SMB"),
    (0xfe53_4d42, "SMB2"),
    (0xff53_4d42, "CIFS"),
    (0x0000_564c, "NCP"),
    (0x5346_414f, "AFS"),
    (0x6b41_4653, "AFS"),
    (0x7375_7245, "Coda"),
    (0x00c3_6400, "Ceph"),
    (0x0bd0_0bd0, "Lustre"),
    (0x0116_1970, "GFS2"),
    (0x7461_636f, "OCFS2"),
    (0x4750_4653, "GPFS"),
    (0x1983_0326, "BeeGFS"),
    (0xaad7_aaea, "PanFS"),
    (0x2003_0528, "OrangeFS"),
];

/// What FUSE file systems share; the mount's type distinguishes them.
const FUSE: u32 = 0x6573_5546;

/// FUSE file systems that reach over a network. One that is not known may be a local one, and is taken to be.
const NETWORK_FUSE: [&str; 18] = [
    "fuse.sshfs",
    "fuse.s3fs",
    "fuse.mount-s3",
    "fuse.mountpoint-s3",
    "fuse.goofys",
    "fuse.gcsfuse",
    "fuse.blobfuse",
    "fuse.blobfuse2",
    "fuse.rclone",
    "fuse.glusterfs",
    "fuse.ceph-fuse",
    "fuse.juicefs",
    "fuse.seaweedfs",
    "fuse.moosefs",
    "fuse.davfs",
    "fuse.curlftpfs",
    "fuse.smbnetfs",
    "fuse.nfs",
];

/// Why the file may not be on this file system; `None` if it may.
pub(super) fn refusal(found: &FileSystem) -> Option<String> {
    let by_number = NETWORK.iter().find(|(magic, _)| *magic == found.magic).map(|(_, name)| *name);
    let by_mount = found.mount.as_deref().filter(|mount| found.magic == FUSE && NETWORK_FUSE.contains(mount));
    let name = by_number.or(by_mount)?;
    Some(format!(
        "its file system is {name} (type {:#x}), which several hosts may use: locks and the write-ahead log hold among the \
         processes of one host only, so that two workers could own one shard; put the file on a local disk (in a container, \
         on a volume of its host)",
        found.magic
    ))
}

/// Looks up the file's own file system, or its directory's while there is no file; `None` if it is unknown.
#[cfg(target_os = "linux")]
pub(super) fn of(path: &Path) -> Option<FileSystem> {
    let there = if path.exists() { path } else { path.parent()? };
    let found = rustix::fs::statfs(there).ok()?;
    // Numbers of 32 bits in a field whose width and sign depend on the processor.
    #[allow(clippy::cast_possible_truncation, reason = "as said")]
    let magic = found.f_type as u32;
    Some(FileSystem { magic, mount: if magic == FUSE { mount_type(there) } else { None } })
}

/// Elsewhere only SQLite itself finds out.
#[cfg(not(target_os = "linux"))]
pub(super) fn of(_: &Path) -> Option<FileSystem> {
    None
}

#[cfg(target_os = "linux")]
fn mount_type(path: &Path) -> Option<String> {
    use std::os::unix::fs::MetadataExt;
    let device = std::fs::metadata(path).ok()?.dev();
    let number = format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
    mount_type_in(&std::fs::read_to_string("/proc/self/mountinfo").ok()?, &number)
}

/// The type of the device's mount in the text of proc(5)'s `mountinfo`.
#[cfg(target_os = "linux")]
fn mount_type_in(mounts: &str, device: &str) -> Option<String> {
    let of_device = mounts.lines().find(|line| line.split(' ').nth(2) == Some(device))?;
    let (_, kind) = of_device.split_once(" - ")?;
    kind.split(' ').next().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(magic: u32, mount: Option<&str>) -> Option<String> {
        refusal(&FileSystem { magic, mount: mount.map(str::to_owned) })
    }

    #[test]
    fn incident_92_network_file_systems_are_refused_by_type_and_local_ones_are_not() {
        for (magic, name) in NETWORK {
            let reason = refused(magic, None).unwrap();
            assert!(reason.contains(name) && reason.contains("put the file on a local disk"), "{reason}");
        }
        for mount in NETWORK_FUSE {
            assert!(refused(FUSE, Some(mount)).unwrap().contains(mount));
        }
        // ext4, XFS, btrfs, tmpfs, ZFS, overlay, 9P.
        for magic in [0xef53, 0x5846_5342, 0x9123_683e, 0x0102_1994, 0x2fc1_2fc1, 0x794c_7630, 0x0102_1997] {
            assert_eq!(refused(magic, None), None, "{magic:#x}");
        }
        for mount in [None, Some("virtiofs"), Some("fuse.fuse-overlayfs"), Some("fuse.mergerfs")] {
            assert_eq!(refused(FUSE, mount), None, "{mount:?}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_mounts_type_is_found_by_its_device() {
        let mounts = "36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue\n\
                      41 35 0:52 / /data rw,nosuid shared:7 master:2 - fuse.sshfs host:/srv rw,user_id=0\n";
        assert_eq!(mount_type_in(mounts, "0:52").as_deref(), Some("fuse.sshfs"));
        assert_eq!(mount_type_in(mounts, "98:0").as_deref(), Some("ext3"));
        assert_eq!(mount_type_in(mounts, "9:9"), None);
        assert!(of(Path::new("/proc/no-such-file")).is_some(), "its directory's");
    }
}
