//! Reports to the service manager by the protocol of sd_notify(3): one datagram.
//!
//! It never blocks, so a manager that does not read its socket cannot stop the loop. Called by the supervisor.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Sends `state` (lines like `READY=1`) to the service manager; returns `false` if there is none.
///
/// # Errors
/// EAGAIN: the manager's queue is full; retry later. ECONNREFUSED, ENOENT: no process listens at `$NOTIFY_SOCKET`.
/// EINVAL: it is no path or abstract name.
pub fn notify(state: &str) -> io::Result<bool> {
    match std::env::var_os("NOTIFY_SOCKET") {
        Some(name) if !name.is_empty() => send(&name, state).map(|()| true),
        _ => Ok(false),
    }
}

/// Whether there is a service manager to notify.
pub(crate) fn has_manager() -> bool {
    std::env::var_os("NOTIFY_SOCKET").is_some_and(|name| !name.is_empty())
}

fn send(name: &OsStr, state: &str) -> io::Result<()> {
    let address = match name.as_bytes() {
        [b'@', rest @ ..] => SocketAddr::from_abstract_name(rest)?,
        [b'/', ..] => SocketAddr::from_pathname(name)?,
        _ => {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("NOTIFY_SOCKET {name:?} is no socket"),
            ));
        }
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    let sent = socket.send_to_addr(state.as_bytes(), &address)?;
    debug_assert_eq!(sent, state.len(), "a datagram is sent whole");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::in_child;

    fn received(manager: &UnixDatagram) -> String {
        let mut bytes = [0; 64];
        let count = manager.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..count].to_vec()).unwrap()
    }

    #[test]
    fn the_manager_hears_by_path_and_by_abstract_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        send(path.as_os_str(), "READY=1").unwrap();
        assert_eq!(received(&manager), "READY=1");

        let name = format!("bulkhead-test-{}", std::process::id());
        let manager = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        send(OsStr::new(&format!("@{name}")), "STATUS=up").unwrap();
        assert_eq!(received(&manager), "STATUS=up");
    }

    #[test]
    fn no_manager_is_fine_and_a_bad_one_is_an_error() {
        in_child("notify::tests::no_manager_is_fine_and_a_bad_one_is_an_error", || {
            assert!(!notify("READY=1").unwrap(), "NOTIFY_SOCKET is set around the tests");
        });
        assert_eq!(send(OsStr::new("/nowhere/at/all"), "x").unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(send(OsStr::new("relative"), "x").unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}
