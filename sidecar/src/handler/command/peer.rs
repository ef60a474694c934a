//! Which process has connected to the Runtime API: only the function's own processes are answered.
//!
//! A loopback port can be found and used by every user of the machine. Linux shows which socket is at the other end
//! (`/proc/net/tcp`) and which process holds it (`/proc/PID/fd`). Where that is unavailable, on another system or
//! without `/proc`, every local process is answered ([ADR 0024](../../../../docs/adr/0024-processes-of-functions.md)).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::MetadataExt as _;

use super::tree::{self, Entry};

/// What is known of the other end of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Peer {
    /// A process of the function.
    Own,
    /// Another process, and what is known of it.
    Stranger(String),
    /// The system does not show it.
    Unknown,
}

/// One end of a connection, as /proc/net/tcp has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Socket {
    uid: u32,
    inode: u64,
}

/// Looks `peer` up, which has connected to `own`; `leader` leads the function's processes, which carry `mark`. Blocks.
pub(super) fn judge(peer: SocketAddr, own: SocketAddr, leader: i32, mark: &str) -> Peer {
    // While sockets come and go the kernel's table may skip one that is there.
    for _ in 0..3 {
        let texts = ["/proc/self/net/tcp", "/proc/self/net/tcp6"].map(std::fs::read_to_string);
        if texts.iter().all(Result::is_err) {
            return Peer::Unknown;
        }
        let found = texts.iter().flatten().find_map(|text| find(text, peer, own));
        if let Some(socket) = found {
            return holder(socket, leader, mark);
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    Peer::Stranger("whose socket is gone".into())
}

fn holder(socket: Socket, leader: i32, mark: &str) -> Peer {
    if holds(leader, socket.inode) == Some(true) {
        return Peer::Own;
    }
    let table = tree::all();
    if table.is_empty() {
        return Peer::Unknown;
    }
    let family = tree::family(&table, leader);
    for member in family.iter().filter(|member| !member.ended) {
        match holds(member.pid, socket.inode) {
            Some(true) => return Peer::Own,
            Some(false) => {}
            // It runs as another user, or cannot be inspected: then its user must suffice.
            None if user(member) == Some(socket.uid) => return Peer::Own,
            None => {}
        }
    }
    // It left its family: started by a parent that has ended, in a session of its own.
    let left = |entry: &&Entry| !family.contains(entry) && holds(entry.pid, socket.inode) == Some(true);
    if let Some(entry) = table.iter().find(left) {
        if tree::has_mark(entry.pid, mark) {
            return Peer::Own;
        }
        return Peer::Stranger(format!("process {} of user {}", entry.pid, socket.uid));
    }
    // Held by a process that hides what it holds, or by none that this system shows. The user's own processes could use the
    // function's mark as well.
    if family.iter().any(|member| user(member) == Some(socket.uid)) {
        return Peer::Unknown;
    }
    Peer::Stranger(format!("a process of user {}", socket.uid))
}

/// Whether the process has this socket open; `None` if that cannot be asked.
fn holds(pid: i32, inode: u64) -> Option<bool> {
    let wanted = format!("socket:[{inode}]");
    let folder = std::fs::read_dir(tree::file(pid, "fd")).ok()?;
    let is_it = |link: std::path::PathBuf| link.as_os_str() == wanted.as_str();
    Some(folder.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok()).any(is_it))
}

/// The effective user of the process.
fn user(entry: &Entry) -> Option<u32> {
    // The folder of a process that cannot be inspected belongs to root; its status shows the user.
    let status = std::fs::read_to_string(tree::file(entry.pid, "status")).ok();
    let line = status.as_deref().and_then(|text| text.lines().find_map(|line| line.strip_prefix("Uid:")));
    let effective = line.and_then(|line| line.split_ascii_whitespace().nth(1)?.parse().ok());
    effective.or_else(|| Some(std::fs::metadata(tree::file(entry.pid, "")).ok()?.uid()))
}

/// The socket whose local address is `peer` and whose remote address is `own`, in the text of /proc/net/tcp or tcp6.
fn find(text: &str, peer: SocketAddr, own: SocketAddr) -> Option<Socket> {
    text.lines().skip(1).find_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let local = address(fields.nth(1)?)?;
        let remote = address(fields.next()?)?;
        if (local, remote) != (peer, own) {
            return None;
        }
        let uid = fields.nth(4)?.parse().ok()?;
        let inode = fields.nth(1)?.parse().ok()?;
        // A socket that is no longer held has no number.
        (inode != 0).then_some(Socket { uid, inode })
    })
}

/// `0100007F:1F90`: words in the machine's byte order, the port as a number. IPv4 in IPv6 is IPv4.
fn address(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| Some(u32::from_str_radix(address.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
    let ip = match address.len() {
        8 => IpAddr::V4(Ipv4Addr::from(word(0)?)),
        32 => {
            let words = [word(0)?, word(8)?, word(16)?, word(24)?];
            let mut bytes = [0; 16];
            bytes.iter_mut().zip(words.iter().flatten()).for_each(|(to, from)| *to = *from);
            IpAddr::V6(Ipv6Addr::from(bytes)).to_canonical()
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn the_kernels_tables_are_read_in_both_families() {
        let tcp = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
                   0: 0100007F:C350 0100007F:1F90 01 00000000:00000000 00:00000000 00000000  1000        0 77 1 0\n   \
                   1: 0100007F:C351 0100007F:1F90 06 00000000:00000000 00:00000000 00000000     0        0 0 1 0\n";
        let tcp6 = "sl\n 0: 0000000000000000FFFF00000100007F:C350 0000000000000000FFFF00000100007F:1F90 01 \
                    00000000:00000000 00:00000000 00000000 65534 0 78 1 0\n";
        let peer = |port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        assert_eq!(find(tcp, peer(50_000), peer(8080)), Some(Socket { uid: 1000, inode: 77 }));
        assert_eq!(find(tcp, peer(50_001), peer(8080)), None, "no process holds it");
        assert_eq!(find(tcp, peer(8080), peer(50_000)), None, "the other end");
        assert_eq!(find(tcp6, peer(50_000), peer(8080)), Some(Socket { uid: 65534, inode: 78 }));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_connection_of_this_process_is_its_own_and_a_strangers_to_another_one() {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let own = listener.local_addr().unwrap();
        let client = std::net::TcpStream::connect(own).unwrap();
        let peer = client.local_addr().unwrap();
        assert_eq!(judge(peer, own, tree::own_pid(), "none"), Peer::Own);
        let mut other = std::process::Command::new("sleep").arg("600").spawn().unwrap();
        let leader = i32::try_from(other.id()).unwrap();
        let judged = judge(peer, own, leader, "none");
        other.kill().unwrap();
        other.wait().unwrap();
        assert!(
            matches!(&judged, Peer::Stranger(who) if who.contains(&tree::own_pid().to_string())),
            "{judged:?}"
        );
    }
}
