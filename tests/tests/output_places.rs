//! Where finished files go, with real file systems: a path that cannot be replaced is written through or refused before
//! the job runs, or the finished file stays beside it and is named. The same for the results of a batch, the result that
//! a job writes itself, and a file that its program makes; as root and as an unprivileged user.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use bulkhead_sys::extended_attributes::{self, ACCESS_LIST};
use bulkhead_tests::daemon::{binary, new_folder};
use bulkhead_tests::or_skip;
use bulkhead_tests::raid::may_become_others;

/// The users: root, and `nobody`.
const USERS: [u32; 2] = [0, 65_534];

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// How a file is written, and what stands in it then.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    /// By the command: the results of two jobs.
    Batch,
    /// By the job: its result.
    Result,
    /// By the program, in a hidden folder.
    Program,
}

impl Way {
    const ALL: [Self; 3] = [Self::Batch, Self::Result, Self::Program];

    fn content(self) -> &'static str {
        if self == Self::Batch { "newnew" } else { "new" }
    }
}

/// Folders of one user: `files` to work in, `tmp` for what has no other place.
struct Bench {
    folder: tempfile::TempDir,
    uid: u32,
}

/// The end of a script: exit code and stderr of the command, what stood in `out`, and the names in the folder.
#[derive(Debug)]
struct Seen {
    code: i32,
    stderr: String,
    /// What the script printed after the command.
    shown: String,
    ran: bool,
}

impl Bench {
    fn of(uid: u32) -> Self {
        let folder = new_folder();
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).expect("its permissions");
        let bench = Self { folder, uid };
        bench.empty();
        bench
    }

    /// Makes the folders anew.
    fn empty(&self) {
        for name in ["files", "tmp", "home", "bin"] {
            let path = self.folder.path().join(name);
            drop(std::fs::remove_dir_all(&path));
            std::fs::create_dir(&path).expect("a folder");
            chown(&path, Some(self.uid), Some(self.uid)).expect("it is root's to give");
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("files").join(name)
    }

    /// The words of `bulkhead run` for this path. The program says that it runs, writes `new`, and does `deed` then.
    fn words(&self, way: Way, path: &str, deed: &str) -> Vec<String> {
        let out = format!("b={path}");
        let (files, script): (&[&str], _) = match way {
            Way::Batch => (&["--count", "2", "-o", path], format!("printf new; {deed}")),
            Way::Result => (&["-o", path], format!("printf new; {deed}")),
            Way::Program => (&["--out", &out], format!("printf new > \"$b\"; {deed}")),
        };
        let script = format!("touch {}; {script}", self.ran().display());
        [&["run", "exec"], files, &["--", "sh", "-c", &script]]
            .concat()
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    /// A file that shows that a job has run.
    fn ran(&self) -> PathBuf {
        self.folder.path().join("home/ran")
    }

    /// Makes an older file of this user.
    fn older(&self, name: &str) -> PathBuf {
        std::fs::write(self.path(name), "older").expect("a file");
        chown(self.path(name), Some(self.uid), Some(self.uid)).expect("it is root's to give");
        self.path(name)
    }

    /// In a mount namespace of its own, in `files`, as root: does `setup`, runs the command as the user, and does `show`.
    /// An error says that the setup is not possible here.
    fn run(&self, words: &[String], setup: &str, show: &str) -> Result<Seen, String> {
        let script = format!(
            "mount --bind \"$B\" \"$T/../bin\" || exit 77; P=\"$T/../bin/bulkhead\"; \
             trap 'chattr -a -i . out 2>/dev/null' EXIT; {{ {setup}; }} || exit 77; \
             setpriv --reuid \"$U\" --regid \"$U\" --clear-groups \"$P\" \"$@\" 2>\"$T/stderr\"; echo $? >\"$T/code\"; {show}"
        );
        let tmp = self.folder.path().join("tmp");
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-c", &script, "sh"]).args(words).current_dir(self.path(""));
        command.env_clear().env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command.env("U", self.uid.to_string()).env("T", &tmp);
        // The programs themselves may lie where only root may go.
        command.env("B", binary("bulkhead").parent().expect("its folder"));
        command.env("HOME", self.folder.path().join("home")).env("XDG_RUNTIME_DIR", &tmp).env("TMPDIR", &tmp);
        let output = command.stdin(Stdio::null()).output().expect("unshare is there");
        let read = |name: &str| std::fs::read_to_string(tmp.join(name)).unwrap_or_default();
        let Ok(code) = read("code").trim().parse() else {
            return Err(format!("`{setup}` is not possible here: {}", text(&output.stderr).trim()));
        };
        let ran = self.ran().exists();
        Ok(Seen { code, stderr: read("stderr"), shown: text(&output.stdout), ran })
    }
}

/// Calls `test` for each user and way, in empty folders.
fn each(mut test: impl FnMut(&Bench, Way) -> Result<(), String>) -> Result<(), String> {
    may_become_others()?;
    for uid in USERS {
        let bench = Bench::of(uid);
        for way in Way::ALL {
            bench.empty();
            test(&bench, way)?;
        }
    }
    Ok(())
}

/// What `show` prints of it, by default: the content of `out`, and all names.
const SHOW: &str = "cat out; echo; ls -A";

#[test]
fn a_file_that_is_a_mount_of_its_own_is_written_through() {
    or_skip!(each(|bench, way| {
        let before = bench.older("out").metadata().expect("it is there").ino();
        let seen = bench.run(&bench.words(way, "out", "true"), "mount --bind out out", SHOW)?;
        assert_eq!((seen.code, seen.stderr.as_str()), (0, ""), "{way:?} {}", bench.uid);
        assert_eq!(seen.shown, format!("{}\nout\n", way.content()));
        assert_eq!(bench.path("out").metadata().expect("it is there").ino(), before);
        // One that is read-only as well can be told before the job runs.
        bench.empty();
        bench.older("out");
        let setup = "mount --bind out out && mount -o remount,bind,ro out";
        let seen = bench.run(&bench.words(way, "out", "true"), setup, SHOW)?;
        assert_eq!((seen.code, seen.ran), (1, false), "{seen:?}");
        assert!(
            seen.stderr
                .contains("it is a mount of its own, so it cannot be replaced, and it cannot be written to")
        );
        assert_eq!(seen.shown, "older\nout\n");
        Ok(())
    }));
}

/// The look before the job finds nothing; the rename does.
#[test]
fn a_file_that_becomes_a_mount_while_the_job_runs_is_written_through() {
    or_skip!(each(|bench, way| {
        if bench.uid != 0 {
            // Only a program of root can mount.
            return Ok(());
        }
        let before = bench.older("out").metadata().expect("it is there").ino();
        let deed = format!("mount --bind {0} {0}", bench.path("out").display());
        let seen = bench.run(&bench.words(way, "out", &deed), "true", SHOW)?;
        assert_eq!((seen.code, seen.stderr.as_str()), (0, ""), "{way:?} {seen:?}");
        assert_eq!(seen.shown, format!("{}\nout\n", way.content()));
        assert_eq!(bench.path("out").metadata().expect("it is there").ino(), before);
        Ok(())
    }));
}

/// The file's own disk has no room for the new one, the folder's has.
#[test]
fn a_full_disk_behind_a_mount_damages_nothing() {
    or_skip!(each(|bench, way| {
        let setup = "mkdir fs && mount -t tmpfs -o size=64k none fs && printf older > fs/real && chown $U:$U fs/real && \
                     touch out && chown $U out && mount --bind fs/real out";
        let much =
            "head -c 100000 /dev/zero".to_owned() + if way == Way::Program { " >> \"$b\"" } else { "" };
        let seen =
            bench.run(&bench.words(way, "out", &much), setup, "cat out; echo; ls -A; wc -c < out.done")?;
        assert_eq!(seen.code, 1, "{way:?} {} {seen:?}", bench.uid);
        assert!(seen.stderr.contains("cannot write to out: No space left on device"), "{seen:?}");
        assert!(seen.stderr.ends_with("/out.done\n") && !seen.stderr.contains("damaged"), "{seen:?}");
        let bytes = way.content().len() / 3 * 100_003;
        assert_eq!(seen.shown, format!("older\nfs\nout\nout.done\n{bytes}\n"), "{seen:?}");
        Ok(())
    }));
}

/// The command is killed just before the first byte is written over.
#[test]
fn a_kill_in_the_middle_leaves_the_finished_file() {
    or_skip!(each(|bench, way| {
        if bench.uid != 0 {
            // A process of another user is traced by itself.
            return Ok(());
        }
        bench.older("out");
        let traced = "printf '#!/bin/sh\\nexec strace -f -o /dev/null -e trace=fallocate -e \
                      inject=fallocate:signal=KILL %s \"$@\"\\n' \"$P\" > \"$T/traced\" && P=\"$T/traced\" && chmod 755 \"$P\"";
        let setup = format!("command -v strace >/dev/null && mount --bind out out && {traced}");
        let seen = bench.run(
            &bench.words(way, "out", "true"),
            &setup,
            "cat out; echo; cat out.done; echo; ls -A",
        )?;
        assert_eq!(seen.code, 137, "{way:?} {seen:?}");
        assert!(seen.shown.starts_with(&format!("older\n{}\n", way.content())), "{seen:?}");
        Ok(())
    }));
}

#[test]
fn a_folder_that_goes_while_the_job_runs_leaves_the_file_in_another() {
    or_skip!(each(|bench, way| {
        // The program runs in a folder of its own, so the names are absolute.
        let (gone, moved) = (bench.path("gone"), bench.path("moved"));
        let deed = match way {
            Way::Program => format!("mv {} {}", gone.display(), moved.display()),
            Way::Batch | Way::Result => format!("rm -rf {}", gone.display()),
        };
        let seen = bench.run(
            &bench.words(way, "gone/out", &deed),
            "mkdir gone && chown $U gone",
            "ls -A moved; cat \"$T\"/*.done",
        )?;
        assert_eq!(seen.code, 1, "{way:?} {} {seen:?}", bench.uid);
        let told = "cannot write to gone/out: No such file or directory (os error 2); the finished file is ";
        assert!(seen.stderr.contains(told) && seen.stderr.ends_with("/tmp/bulkhead-out.done\n"), "{seen:?}");
        assert_eq!(seen.shown, way.content());
        Ok(())
    }));
}

#[test]
fn another_users_file_in_a_sticky_folder_is_told_or_written_through() {
    or_skip!(each(|bench, way| {
        let sticky = |owner: u32, mode: u32| {
            format!(
                "mkdir s && chmod 1777 s && printf older > s/out && chown {owner}:{owner} s/out && chmod {mode} s/out"
            )
        };
        let show = "cat s/out; stat -c ' %u %a' s/out";
        for (owner, mode, refused) in [
            (1, 666, "it belongs to user 1 in the sticky folder"),
            (0, 644, "permission denied for user 65534"),
            (0, 666, ""),
        ] {
            bench.empty();
            let seen = bench.run(&bench.words(way, "s/out", "true"), &sticky(owner, mode), show)?;
            // Root may replace each, and it stays its owner's.
            let is_refused = bench.uid != 0 && !refused.is_empty();
            assert_eq!((seen.code != 0, seen.ran), (is_refused, !is_refused), "{owner} {way:?} {seen:?}");
            let content = if is_refused { "older" } else { way.content() };
            assert_eq!(seen.shown, format!("{content} {owner} {mode}\n"), "{way:?} {seen:?}");
            assert!(!is_refused || seen.stderr.contains(refused), "{seen:?}");
        }
        Ok(())
    }));
}

#[test]
fn what_is_immutable_or_append_only_is_told_before_the_job_runs() {
    or_skip!(each(|bench, way| {
        for (flag, told) in [("+a", "it is append-only and cannot be replaced"), ("+i", "it is immutable")] {
            bench.empty();
            bench.older("out");
            let seen = bench.run(&bench.words(way, "out", "true"), &format!("chattr {flag} out"), SHOW)?;
            assert_eq!((seen.code, seen.ran, seen.shown.as_str()), (1, false, "older\nout\n"), "{seen:?}");
            assert!(seen.stderr.contains(told) && seen.stderr.contains("chattr -"), "{seen:?}");
        }
        // A folder that loses no name: an older file is written through, and a new one gets its name by a link.
        for flag in ["+a", "+i"] {
            bench.empty();
            bench.older("out");
            let seen = bench.run(&bench.words(way, "out", "true"), &format!("chattr {flag} ."), "cat out")?;
            assert_eq!((seen.code, seen.stderr.as_str()), (0, ""), "{flag} {way:?} {seen:?}");
            assert_eq!(seen.shown, way.content());
        }
        Ok(())
    }));
}

#[test]
fn a_read_only_file_system_is_told_before_the_job_runs() {
    or_skip!(each(|bench, way| {
        let setup = "mkdir ro && mount -t tmpfs none ro && printf older > ro/out && chown -R $U ro && \
                     mount -o remount,ro ro";
        for path in ["ro/out", "ro/new"] {
            bench.empty();
            let seen = bench.run(&bench.words(way, path, "true"), setup, "cat ro/out; ls -A ro")?;
            assert_eq!((seen.code, seen.ran), (1, false), "{way:?} {seen:?}");
            assert!(
                seen.stderr.contains(&format!("cannot write to {path}: Read-only file system")),
                "{seen:?}"
            );
            assert_eq!(seen.shown, "olderout\n");
        }
        // A file of another disk can be mounted there, as container runtimes do.
        bench.empty();
        bench.older("elsewhere");
        let seen = bench.run(
            &bench.words(way, "ro/out", "true"),
            &format!("{setup} && mount --bind elsewhere ro/out"),
            "cat ro/out; ls -A ro",
        )?;
        assert_eq!((seen.code, seen.stderr.as_str()), (0, ""), "{way:?} {seen:?}");
        assert_eq!(seen.shown, format!("{}out\n", way.content()));
        Ok(())
    }));
}

#[test]
fn a_link_stays_and_its_file_is_replaced() {
    or_skip!(each(|bench, way| {
        let setup = "mkdir fs && mount -t tmpfs none fs && chown $U fs && printf older > fs/real && chown $U:$U fs/real && \
                     ln -s fs/real out";
        let seen =
            bench.run(&bench.words(way, "out", "true"), setup, "cat fs/real; readlink out; ls -A fs")?;
        assert_eq!((seen.code, seen.stderr.as_str()), (0, ""), "{way:?} {seen:?}");
        assert_eq!(seen.shown, format!("{}fs/real\nreal\n", way.content()));
        bench.empty();
        let seen = bench.run(&bench.words(way, "out", "true"), "ln -s nothing out", "readlink out; ls -A")?;
        assert_eq!((seen.code, seen.ran), (1, false), "{way:?} {seen:?}");
        assert!(seen.stderr.contains("it is a link to nothing, which is not there"), "{seen:?}");
        assert_eq!(seen.shown, "nothing\nout\n");
        Ok(())
    }));
}

#[test]
fn a_hard_linked_file_is_replaced_with_a_word() {
    or_skip!(each(|bench, way| {
        let older = bench.older("out");
        std::fs::hard_link(older, bench.path("other")).expect("a link");
        let seen = bench.run(&bench.words(way, "out", "true"), "true", "cat out; echo; cat other")?;
        assert_eq!(seen.code, 0, "{way:?} {seen:?}");
        assert!(
            seen.stderr.contains("had 2 names (hard links): the others keep the older content"),
            "{seen:?}"
        );
        assert_eq!((seen.stderr.lines().count(), seen.shown), (1, format!("{}\nolder", way.content())));
        Ok(())
    }));
}

/// An access list: the owner rw, user 7 r, the group r, mask r, others nothing.
fn list() -> Vec<u8> {
    let entries =
        [(1_u16, 6_u16, u32::MAX), (2, 4, 7), (4, 4, u32::MAX), (16, 4, u32::MAX), (32, 0, u32::MAX)];
    let mut list = vec![2, 0, 0, 0];
    for (tag, permissions, id) in entries {
        list.extend([&tag.to_le_bytes()[..], &permissions.to_le_bytes(), &id.to_le_bytes()].concat());
    }
    list
}

#[test]
fn owner_mode_and_access_list_stay_as_far_as_the_user_may() {
    or_skip!(each(|bench, way| {
        let older = bench.older("out");
        let file = std::fs::File::open(&older).expect("it is there");
        let set = extended_attributes::set(&file, ACCESS_LIST, &list());
        set.map_err(|error| format!("{} has no access lists: {error}", older.display()))?;
        chown(&older, Some(1), Some(1)).expect("it is root's to give");
        let seen = bench.run(&bench.words(way, "out", "true"), "true", SHOW)?;
        assert_eq!(
            (seen.code, seen.shown),
            (0, format!("{}\nout\n", way.content())),
            "{way:?} {}",
            seen.stderr
        );
        let has = older.metadata().expect("it is there");
        let owner = if bench.uid == 0 { 1 } else { bench.uid };
        assert_eq!((has.uid(), has.gid()), (owner, owner));
        let told = seen.stderr.contains("belonged to user 1 and belongs to user 65534 now");
        assert_eq!(told, bench.uid != 0, "{}", seen.stderr);
        let list_now =
            extended_attributes::get(&older, ACCESS_LIST).expect("it can be read").expect("a list");
        assert_eq!(list_now.len(), list().len());
        // A group that changes gets what others have: nothing.
        let mode = has.mode() & 0o7777;
        assert_eq!(mode, 0o640, "the mask stands in the place of the group");
        assert_eq!(list_now == list(), bench.uid == 0);
        Ok(())
    }));
}

#[test]
fn pipes_and_devices_are_written_and_what_they_refuse_is_kept() {
    or_skip!(each(|bench, way| {
        let setup = "mkfifo out && chown $U out && { timeout 60 cat out > got & }";
        let seen = bench.run(
            &bench.words(way, "out", "true"),
            setup,
            "wait; cat got; test -p out && echo p; ls -A",
        )?;
        assert_eq!((seen.code, seen.stderr.as_str()), (0, ""), "{way:?} {seen:?}");
        assert_eq!(seen.shown, format!("{}p\ngot\nout\n", way.content()));
        bench.empty();
        let seen = bench.run(
            &bench.words(way, "/dev/full", "true"),
            "true",
            "cat \"$T\"/*.done; ls -A /dev | grep -c bulkhead",
        )?;
        assert_eq!(seen.code, 1, "{way:?} {seen:?}");
        assert!(seen.stderr.contains("/dev/full: No space left on device"), "{seen:?}");
        // The results of a batch are written as they come.
        let kept = if way == Way::Batch { "" } else { way.content() };
        assert_eq!(seen.shown, format!("{kept}0\n"), "{way:?} {seen:?}");
        Ok(())
    }));
}

/// What the shell has opened is written on, not replaced.
#[test]
fn standard_output_by_its_name_goes_on_where_the_shell_left_off() {
    or_skip!(each(|bench, way| {
        for name in ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"] {
            bench.empty();
            let setup = "exec 5>&1 && exec > log && printf head, && chown $U log";
            let seen = bench.run(
                &bench.words(way, name, "true"),
                setup,
                "printf ,tail; exec >&5; cat log; ls -A",
            )?;
            assert_eq!((seen.code, seen.stderr.as_str()), (0, ""), "{way:?} {seen:?}");
            assert_eq!(seen.shown, format!("head,{},taillog\n", way.content()));
        }
        Ok(())
    }));
}
