//! The host's own DNS servers, as `/etc/resolv.conf` names them now.
//!
//! Invariant: a file that can't be read, or names nobody, is an error and never an older list.

use std::io::{self, Read as _};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

const PORT: u16 = 53;
/// As many as the C library reads.
const MOST: usize = 3;
const LONGEST_FILE: u64 = 64 * 1024;

/// The file, and what tells one version of it from another.
#[derive(Debug)]
pub(super) struct HostServers {
    file: PathBuf,
}

/// What a version of the file is known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Version {
    device: u64,
    inode: u64,
    length: u64,
    changed: (i64, i64),
    written: (i64, i64),
}

impl HostServers {
    pub(super) fn new(file: PathBuf) -> Self {
        Self { file }
    }

    pub(super) fn file(&self) -> &Path {
        &self.file
    }

    /// Which version is there now.
    pub(super) fn version(&self) -> io::Result<Version> {
        let metadata = std::fs::metadata(&self.file)?;
        Ok(Version {
            device: metadata.dev(),
            inode: metadata.ino(),
            length: metadata.len(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            written: (metadata.mtime(), metadata.mtime_nsec()),
        })
    }

    /// The servers that it names, the first first.
    pub(super) fn read(&self) -> io::Result<Vec<SocketAddr>> {
        let mut text = Vec::new();
        std::fs::File::open(&self.file)?.take(LONGEST_FILE).read_to_end(&mut text)?;
        Ok(servers(&String::from_utf8_lossy(&text)))
    }
}

fn servers(text: &str) -> Vec<SocketAddr> {
    let named = text.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        (words.next() == Some("nameserver")).then(|| words.next()).flatten()
    });
    // An address with a zone (`fe80::1%eth0`) is none here: it means a link, and links come and go.
    let mut found: Vec<SocketAddr> = Vec::new();
    for address in named.filter_map(|word| word.parse::<IpAddr>().ok()) {
        let server = SocketAddr::new(address, PORT);
        if found.len() < MOST && !found.contains(&server) {
            found.push(server);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_read_in_their_order_as_many_as_the_c_library_takes() {
        let text = "# nameserver 192.0.2.9\n; comment\nsearch corp.example\n nameserver 192.0.2.1\nnameserver\t2001:db8::1 extra\n\
            nameserver 192.0.2.1\nnameserver fe80::1%eth0\nnameserver dns.example\nnameservers 192.0.2.8\nnameserver 192.0.2.2\nnameserver 192.0.2.3\n";
        let found: Vec<String> = servers(text).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["192.0.2.1:53", "[2001:db8::1]:53", "192.0.2.2:53"]);
        assert!(servers("").is_empty());
    }
}
