//! Random bytes of the kernel: getrandom(2).
//!
//! For names that no other process may give by chance. Nothing here keeps a state.

use std::io;

use nix::libc;

/// Fills the buffer with random bytes. Early in the boot of a machine it waits until the kernel has some.
///
/// # Errors
/// Those of getrandom(2), but for an interruption, after which it goes on.
pub fn fill(buffer: &mut [u8]) -> io::Result<()> {
    let mut filled = 0;
    while filled < buffer.len() {
        let rest = &mut buffer[filled..];
        // SAFETY: the pointer and the length are those of a buffer that is borrowed for the call.
        let count = unsafe { libc::getrandom(rest.as_mut_ptr().cast(), rest.len(), 0) };
        match usize::try_from(count) {
            Ok(count) => filled += count,
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_buffer_is_filled_each_time_anew() {
        let (mut one, mut other) = ([0; 1000], [0; 1000]);
        fill(&mut one).unwrap();
        fill(&mut other).unwrap();
        assert_ne!(one, other);
        assert!(one[984..].iter().any(|byte| *byte != 0), "its end too");
        fill(&mut []).unwrap();
    }
}
