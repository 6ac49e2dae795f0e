//! Processor time of all descendants of a process, found through the kernel's lists of children.
//!
//! Each process counts with its own time and that of the children it has waited for. A parent is read before its
//! children, so no time is counted twice. The sum is a lower bound: at most [`READS_MAX`] files are read, a process
//! that ends during the walk may be missed until the next sample, and the time of a dead child that its parent never
//! waited for is lost. Where `hidepid` hides a process, its descendants are not seen. So the service, whose /proc has
//! `hidepid`, sees no living descendant of a worker; it offers no `exec` yet.
//!
//! It reads counters and waits for no lock that a process could hold. Memory is not summed: shared pages would count
//! for each process, and an exact sum would wait for locks of theirs. Driven by `process_stats.rs`.

use std::io;

use nix::unistd::{SysconfVar, sysconf};

use crate::process_stats::{field, fields_of};

/// Files that one sample reads at most, because its caller has others to serve.
const READS_MAX: usize = 1000;

/// Field numbers in a `stat` line behind the name; field 0 is the state.
const PARENT_AT: usize = 1;
const OWN_AT: [usize; 2] = [11, 12];
const REAPED_AT: [usize; 2] = [13, 14];

/// Processor time of all living descendants and of the dead children that they waited for, in nanoseconds. Those that
/// the process itself waited for are not included, see [`reaped_ns`].
pub(crate) fn cpu_ns(pid: u32) -> u64 {
    let mut reads_left = READS_MAX;
    let mut parents = vec![pid];
    let mut sum_ns = 0;
    while let Some(parent) = parents.pop() {
        for child in children(parent, &mut reads_left).unwrap_or_default() {
            // A pid may have been reused; then its parent is another one too.
            let time = spend(&mut reads_left).and_then(|()| time_ns(child, parent));
            if let Some(ns) = time {
                sum_ns += ns;
                parents.push(child);
            }
        }
    }
    sum_ns
}

/// Processor time of the dead children that a process waited for, from its `stat` line, in nanoseconds.
pub(crate) fn reaped_ns(stat: &[u8]) -> u64 {
    fields_of(stat).map_or(0, |fields| ticks(fields, REAPED_AT))
}

fn spend(reads_left: &mut usize) -> Option<()> {
    *reads_left = reads_left.checked_sub(1)?;
    Some(())
}

fn children(parent: u32, reads_left: &mut usize) -> io::Result<Vec<u32>> {
    let mut found = Vec::new();
    for thread in std::fs::read_dir(format!("/proc/{parent}/task"))? {
        if spend(reads_left).is_none() {
            break;
        }
        // The children of an ended thread belong to another thread now.
        let list = std::fs::read_to_string(thread?.path().join("children")).unwrap_or_default();
        found.extend(list.split_ascii_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
    }
    Ok(found)
}

fn time_ns(pid: u32, parent: u32) -> Option<u64> {
    let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    let fields = fields_of(&stat)?;
    (field(fields, PARENT_AT)? == u64::from(parent)).then(|| ticks(fields, OWN_AT) + ticks(fields, REAPED_AT))
}

fn ticks(fields: &[u8], places: [usize; 2]) -> u64 {
    // 100 per second on every Linux of today.
    let per_second = sysconf(SysconfVar::CLK_TCK).ok().flatten().and_then(|count| u64::try_from(count).ok());
    let ticks: u64 = places.into_iter().filter_map(|place| field(fields, place)).sum();
    ticks.saturating_mul(1_000_000_000 / per_second.filter(|count| *count > 0).unwrap_or(100))
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::pidfd::Process;
    use crate::process_stats::{ProcessStats, StatsSample};
    use crate::testing::{PATIENCE, reap, shell_on};

    /// Uses some ticks of processor time, then writes a line.
    const WORK: &str = "work() { i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; echo >&3; }; exec 3<&0; ";

    /// A sample of a shell that runs `script`, after it has written so many lines. The shell is killed then, and so
    /// is each process that reads from the same socket.
    fn seen_of(script: &str, lines: usize) -> StatsSample {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let process: Process = shell_on(&format!("{WORK}{script}"), theirs);
        let stats = ProcessStats::of_child(&process).unwrap();
        ours.set_read_timeout(Some(PATIENCE)).unwrap();
        ours.read_exact(&mut vec![0; lines]).unwrap();
        let seen = stats.sample().unwrap().expect("it was not reaped");
        process.kill(9).unwrap();
        reap(&process);
        // Its children end at the end of their input.
        drop(ours);
        seen
    }

    const SOME_NS: u64 = 20_000_000;

    #[test]
    fn time_of_children_counts_while_they_live_and_once_they_are_waited_for() {
        let alone = seen_of("read line <&3", 0);
        assert_eq!(alone.below_ns, 0, "{alone:?}");
        let own = seen_of("work; read line <&3", 1);
        assert!(own.cpu_ns > SOME_NS && own.below_ns == 0, "{own:?}");
        let living = seen_of("((work; read line <&3); read line <&3) & read line <&3", 1);
        assert!(living.below_ns > SOME_NS && living.cpu_ns < living.below_ns, "{living:?}");
        let reaped = seen_of("(work); (work); (echo >&3; read line <&3)", 3);
        assert!(reaped.below_ns > 2 * SOME_NS && reaped.cpu_ns < reaped.below_ns, "{reaped:?}");
    }

    #[test]
    fn a_number_that_is_somebody_elses_is_not_counted() {
        assert!(time_ns(std::process::id(), 1 << 22).is_none());
    }
}
