//! Adler-32 (RFC 1950), as Python's `zlib.adler32` has it: the checksum that both sides of the payload section take.

/// So many bytes cannot overflow 32 bits before a remainder is taken.
const BLOCK: usize = 5552;
const MODULUS: u32 = 65_521;

/// The checksum of what went on before, continued over these bytes; 1 at the beginning.
pub(crate) fn continued(before: u32, bytes: &[u8]) -> u32 {
    let (mut low, mut high) = (before & 0xffff, before >> 16);
    for block in bytes.chunks(BLOCK) {
        for byte in block {
            low += u32::from(*byte);
            high += low;
        }
        low %= MODULUS;
        high %= MODULUS;
    }
    high << 16 | low
}
