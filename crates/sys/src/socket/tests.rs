//! Tests of the local socket, against the real kernel.

use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;

use super::*;
use crate::memfd::output_file;

#[test]
fn the_kernel_says_who_the_peer_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let listener = listen(&path, 0o600, None).unwrap();
    let client = UnixStream::connect(&path).unwrap();
    let (served, _) = listener.accept().unwrap();
    let own = PeerCred { pid: std::process::id(), uid: own_uid(), gid: nix::unistd::getegid().as_raw() };
    assert_eq!(peer_cred(served.as_fd()).unwrap(), own);
    assert_eq!(peer_cred(client.as_fd()).unwrap(), own);
    let own: Vec<u32> = nix::unistd::getgroups().unwrap().iter().map(|group| group.as_raw()).collect();
    assert_eq!(peer_groups(served.as_fd()).unwrap(), own);
    assert_eq!(
        peer_cred(std::fs::File::open("/dev/null").unwrap().as_fd()).unwrap_err().raw_os_error(),
        Some(libc::ENOTSOCK)
    );
}

#[test]
fn many_groups_are_all_told() {
    crate::testing::in_child("socket::tests::many_groups_are_all_told", || {
        for count in [0, 1, 64, 65, 300] {
            let groups: Vec<_> = (1000..1000 + count).map(nix::unistd::Gid::from_raw).collect();
            if nix::unistd::setgroups(&groups).is_err() {
                skip!("only root may choose its groups");
            }
            let (ours, _theirs) = UnixStream::pair().unwrap();
            assert_eq!(peer_groups(ours.as_fd()).unwrap(), (1000..1000 + count).collect::<Vec<_>>());
        }
    });
}

#[test]
fn groups_have_numbers() {
    assert_eq!(group_id("root").unwrap(), Some(0));
    assert_eq!(group_id("no-such-group-anywhere").unwrap(), None);
}

#[test]
fn mode_and_group_hold_whatever_the_umask_is() {
    crate::testing::in_child("socket::tests::mode_and_group_hold_whatever_the_umask_is", || {
        nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let group = nix::unistd::getegid().as_raw();
        let listener = listen(&path, 0o660, Some(group)).unwrap();
        let file = std::fs::metadata(&path).unwrap();
        assert_eq!((file.mode() & 0o777, file.gid()), (0o660, group));
        assert_eq!(listener.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
    });
}

#[test]
fn a_stale_socket_is_replaced_and_anything_else_is_kept() {
    let _quiet = crate::testing::nobody_spawns();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    drop(listen(&path, 0o600, None).unwrap());
    assert_eq!(UnixStream::connect(&path).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    let _listener = listen(&path, 0o600, None).unwrap();
    UnixStream::connect(&path).unwrap();

    let file = folder.path().join("file");
    std::fs::write(&file, "precious").unwrap();
    assert_eq!(listen(&file, 0o600, None).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    assert_eq!(listen(&link, 0o600, None).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");

    let long = folder.path().join("x".repeat(120));
    assert_eq!(listen(&long, 0o600, None).unwrap_err().raw_os_error(), Some(libc::ENAMETOOLONG));
    let nowhere = folder.path().join("nowhere/socket");
    assert_eq!(listen(&nowhere, 0o600, None).unwrap_err().kind(), io::ErrorKind::NotFound);
}

#[test]
fn a_descriptor_arrives_with_the_first_byte() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    theirs.set_nonblocking(true).unwrap();
    let mut file = std::fs::File::from(output_file("passed").unwrap());
    file.write_all(b"content").unwrap();
    ours.try_clone().unwrap().write_all(b"before").unwrap();
    assert_eq!(send_with_fd(ours.as_fd(), b"frame", Some(file.as_fd())).unwrap(), 5);
    let (mut bytes, mut into, mut text) = ([0; 64], Vec::new(), Vec::new());
    while text.len() < 11 {
        let count = recv_with_fds(theirs.as_fd(), &mut bytes, &mut into).unwrap();
        text.extend_from_slice(&bytes[..count]);
        assert_eq!(into.len(), usize::from(text.len() > 6));
    }
    assert_eq!(text, b"beforeframe");
    let flags = nix::fcntl::fcntl(&into[0], nix::fcntl::FcntlArg::F_GETFD).unwrap();
    assert_eq!(flags, libc::FD_CLOEXEC);
    let mut content = [0; 7];
    std::os::unix::fs::FileExt::read_exact_at(&std::fs::File::from(into.remove(0)), &mut content, 0).unwrap();
    assert_eq!(&content, b"content");
    let error = recv_with_fds(theirs.as_fd(), &mut bytes, &mut into).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
}

#[test]
fn a_full_socket_and_a_gone_peer_are_told_without_a_signal() {
    let _quiet = crate::testing::nobody_spawns();
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    let error = loop {
        if let Err(error) = send_with_fd(ours.as_fd(), &[0; 4096], None) {
            break error;
        }
    };
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    drop(theirs);
    assert_eq!(send_with_fd(ours.as_fd(), b"x", None).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
}

#[test]
fn too_many_descriptors_are_an_error_and_none_leaks() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (mut watched, passed) = UnixStream::pair().unwrap();
    let many = [passed.as_fd(); message::DESCRIPTORS_MAX];
    assert_eq!(message::send(ours.as_fd(), b"x", &many, 0).unwrap(), 1);
    let error = message::send(ours.as_fd(), b"x", &[passed.as_fd(); 17], 0).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
    let mut into = Vec::new();
    assert_eq!(recv_with_fds(theirs.as_fd(), &mut [0; 8], &mut into).unwrap(), 1);
    assert_eq!(into.len(), 16);
    drop((into, passed));
    assert_eq!(watched.read(&mut [0]).unwrap(), 0, "a descriptor leaked");
}

#[test]
fn descriptors_beyond_the_limit_of_this_process_are_an_error() {
    crate::testing::in_child(
        "socket::tests::descriptors_beyond_the_limit_of_this_process_are_an_error",
        || {
            use nix::sys::resource::{Resource, setrlimit};
            let (ours, theirs) = UnixStream::pair().unwrap();
            let (mut watched, passed) = UnixStream::pair().unwrap();
            message::send(ours.as_fd(), b"x", &[passed.as_fd(); 16], 0).unwrap();
            setrlimit(Resource::RLIMIT_NOFILE, 12, 12).unwrap();
            let mut into = Vec::new();
            let error = recv_with_fds(theirs.as_fd(), &mut [0; 8], &mut into).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
            drop((into, passed));
            assert_eq!(watched.read(&mut [0]).unwrap(), 0, "a descriptor leaked");
        },
    );
}

#[test]
fn a_peer_of_another_user_is_told_as_such() {
    crate::testing::in_child("socket::tests::a_peer_of_another_user_is_told_as_such", || {
        use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
        if own_uid() != 0 {
            skip!("only root may become somebody else");
        }
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let path = folder.path().join("socket");
        let listener = listen(&path, 0o666, None).unwrap();
        let (uid, gid) = (Uid::from_raw(65534), Gid::from_raw(65534));
        setgroups(&[]).unwrap();
        setresgid(gid, gid, gid).unwrap();
        // Root stays the saved user, so that the folder can be removed in the end.
        setresuid(uid, uid, Uid::from_raw(0)).unwrap();
        let _client = UnixStream::connect(&path).unwrap();
        let (served, _) = listener.accept().unwrap();
        setresuid(Uid::from_raw(0), Uid::from_raw(0), Uid::from_raw(0)).unwrap();
        let expected = PeerCred { pid: std::process::id(), uid: 65534, gid: 65534 };
        assert_eq!(peer_cred(served.as_fd()).unwrap(), expected);
        assert_eq!(peer_groups(served.as_fd()).unwrap(), []);
    });
}
