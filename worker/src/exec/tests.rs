//! What can be told of a program without running one.

use super::*;

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

#[test]
fn a_program_is_looked_up_on_its_own_path() {
    let place = folder();
    let file = place.path().join("tool");
    fs::write(&file, "").unwrap();
    let path_of = |path: &Path| vec![(b"PATH".to_vec(), path.as_os_str().as_encoded_bytes().to_vec())];
    let env = environment(Path::new("/private"), path_of(place.path()));
    let look = |name: &str| look_up(OsStr::new(name), &env, Path::new("/private"));
    let plain = look("tool").unwrap_err();
    assert_eq!(plain.program_end().map(ProgramEnd::code), Some(NOT_RUNNABLE));
    assert!(plain.to_string().contains("may not be executed"), "{plain}");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(look("tool").unwrap(), file);
    assert_eq!(look("./tool").unwrap(), Path::new("/private/./tool"));
    assert_eq!(look("/bin/tool").unwrap(), Path::new("/bin/tool"));
    assert_eq!(look("other").unwrap_err().program_end().map(ProgramEnd::code), Some(NOT_FOUND));
    let usual = environment(Path::new("/private"), Vec::new());
    assert!(look_up(OsStr::new("sh"), &usual, Path::new("/private")).is_ok());
}

#[test]
fn ends_are_named_and_have_the_codes_of_a_shell() {
    for (error, code) in [(2, Some(127)), (8, Some(126)), (13, Some(126)), (11, None)] {
        let failure = not_run(OsStr::new("x"), &io::Error::from_raw_os_error(error));
        assert_eq!(failure.program_end().map(ProgramEnd::code), code, "{failure}");
    }
    let plain = |signal| killed_by(signal, None);
    assert!(plain(25).contains("SIGXFSZ") && plain(25).contains("RLIMIT_FSIZE"));
    assert!(killed_by(25, Some(7)).contains("above 7 bytes (copies_bytes_max"));
    assert!(plain(24).contains("RLIMIT_CPU"));
    assert_eq!((plain(9).as_str(), plain(40).as_str()), ("killed by SIGKILL", "killed by signal 40"));
}
